"""The nodes of the pack, one a file. What they need of ComfyUI is in `host`."""

from . import host, registry, routes
from .apply import Live2DiffApply
from .browser_camera import Live2DiffBrowserCamera
from .bundled_model import Live2DiffBundledModel
from .example_video import Live2DiffExampleVideo
from .live import Live2DiffLive
from .metrics import Live2DiffMetrics
from .pattern import Live2DiffTestPattern
from .plan import Live2DiffPlan
from .prompt_travel import Live2DiffPromptTravel
from .record import Live2DiffRecord
from .sampler import Live2DiffSampler
from .screen import Live2DiffScreen
from .server_camera import Live2DiffServerCamera
from .socket_source import Live2DiffSocketSource
from .speed import Live2DiffSpeed
from .translate_video import Live2DiffTranslateVideo
from .video_source import Live2DiffVideoSource
from .warmup import Live2DiffWarmup

NODE_DISPLAY_NAMES = {
    Live2DiffBundledModel: "Live2Diff Bundled Model",
    Live2DiffApply: "Live2Diff Apply",
    Live2DiffSpeed: "Live2Diff Speed",
    Live2DiffWarmup: "Live2Diff Warm-up",
    Live2DiffSampler: "Live2Diff Sampler",
    Live2DiffTranslateVideo: "Live2Diff Translate Video",
    Live2DiffPromptTravel: "Live2Diff Prompt Travel",
    Live2DiffMetrics: "Live2Diff Metrics",
    Live2DiffPlan: "Live2Diff Plan",
    Live2DiffExampleVideo: "Live2Diff Example Video",
    Live2DiffLive: "Live2Diff Live",
    Live2DiffBrowserCamera: "Live2Diff Browser Camera",
    Live2DiffServerCamera: "Live2Diff Server Camera",
    Live2DiffVideoSource: "Live2Diff Video Source",
    Live2DiffScreen: "Live2Diff Screen",
    Live2DiffTestPattern: "Live2Diff Test Pattern",
    Live2DiffSocketSource: "Live2Diff Socket Source",
    Live2DiffRecord: "Live2Diff Record",
}
NODE_CLASS_MAPPINGS = {node.__name__: node for node in NODE_DISPLAY_NAMES}
NODE_DISPLAY_NAME_MAPPINGS = {node.__name__: name for node, name in NODE_DISPLAY_NAMES.items()}

host.register_folders()
host.add_routes(routes.add)
host.on_prompt(registry.end_unnamed)
