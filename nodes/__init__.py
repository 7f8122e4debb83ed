"""The nodes of the pack, one a file. What they need of ComfyUI is in `host`."""

from . import host, routes
from .apply import Live2DiffApply
from .bundled_model import Live2DiffBundledModel
from .example_video import Live2DiffExampleVideo
from .plan import Live2DiffPlan
from .prompt_travel import Live2DiffPromptTravel
from .sampler import Live2DiffSampler
from .translate_video import Live2DiffTranslateVideo
from .warmup import Live2DiffWarmup

NODE_DISPLAY_NAMES = {
    Live2DiffBundledModel: "Live2Diff Bundled Model",
    Live2DiffApply: "Live2Diff Apply",
    Live2DiffWarmup: "Live2Diff Warm-up",
    Live2DiffSampler: "Live2Diff Sampler",
    Live2DiffTranslateVideo: "Live2Diff Translate Video",
    Live2DiffPromptTravel: "Live2Diff Prompt Travel",
    Live2DiffPlan: "Live2Diff Plan",
    Live2DiffExampleVideo: "Live2Diff Example Video",
}
NODE_CLASS_MAPPINGS = {node.__name__: node for node in NODE_DISPLAY_NAMES}
NODE_DISPLAY_NAME_MAPPINGS = {node.__name__: name for node, name in NODE_DISPLAY_NAMES.items()}

host.register_folders()
host.add_routes(routes.add)
