"""The node that makes a streaming model of the user's own MODEL and VAE."""

from typing import TYPE_CHECKING, Any

from ..live2diff_core.config import DepthRule, NoiseScheduleConfig, StepSelection
from ..live2diff_core.errors import WeightsMissingError
from . import host
from .files import (
    STRUCTURE,
    depth_models,
    depth_problem,
    motion_files,
    motion_problem,
    stamp,
)

if TYPE_CHECKING:
    import torch

    from ..live2diff_core.models.depth import DepthEstimator
    from .hosted import HostedModel

NO_MOTION = "(no motion weights found)"
SIDE = 512  # pixels; what the motion weights were trained with
STEPS = StepSelection((30, 36, 42))


class Live2DiffApply:
    """A MODEL and a VAE of Stable Diffusion 1.5 with Live2Diff's motion weights."""

    CATEGORY = "Live2Diff/model"
    SEARCH_ALIASES = (
        "sd 1.5 to stream",
        "motion weights",
        "streaming model",
        "style transfer",
        "video to video",
    )
    DESCRIPTION = (
        "Makes a streaming model of your own Stable Diffusion 1.5 MODEL, with all LoRAs and merges "
        "before it, and Live2Diff's motion weights. The MODEL itself is not changed. Put LCM-LoRA "
        "before it (Load LoRA) and take taesd as VAE (Load VAE) for speed."
    )
    RETURN_TYPES = ("LIVE2DIFF_MODEL",)
    RETURN_NAMES = ("model",)
    OUTPUT_TOOLTIPS = ("For Warm-up, Translate Video, Live and Plan.",)
    FUNCTION = "apply"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """MODEL, VAE and what lies in the model folders."""
        return {
            "required": {
                "model": (
                    "MODEL",
                    {"tooltip": "Stable Diffusion 1.5 or a finetune, with LoRAs.", "lazy": True},
                ),
                "vae": (
                    "VAE",
                    {"tooltip": "That of the checkpoint, or taesd, which is fast.", "lazy": True},
                ),
                "motion_weights": (
                    list(motion_files()) or [NO_MOTION],
                    {
                        "tooltip": "live2diff.ckpt, or the safetensors that `live2diff convert` "
                        "makes of it, from models/live2diff or models/animatediff_models."
                    },
                ),
                "depth_model": (
                    [STRUCTURE, *depth_models()],
                    {
                        "default": STRUCTURE,
                        "tooltip": "What tells near from far: a depth model from models/depth "
                        "(the motion weights were trained with dpt_hybrid_384.pt), or structure, "
                        "which needs no file.",
                    },
                ),
                "depth_range": (
                    ["running", "frame"],
                    {
                        "default": "running",
                        "tooltip": "How depth is scaled. running: its range follows the stream, "
                        "steadier. frame: each frame has its own; the paper's way.",
                    },
                ),
            },
            "optional": {
                "depth": (
                    "DA3_MODEL",
                    {
                        "tooltip": "Depth Anything 3, from ComfyUI's Load Depth Anything 3. It is "
                        "taken in place of depth_model."
                    },
                )
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, motion_weights: str | None = None) -> bool | str:
        """What is wrong with the motion weights; a name that is linked is None.

        ComfyUI itself looks for the depth model in the list.
        """
        return (motion_weights is not None and motion_problem(motion_weights)) or True

    def check_lazy_status(self, depth_model: str, **_: object) -> list[str]:
        """Raise WeightsMissingError for a depth model that is not there; else ask for a base."""
        if problem := depth_problem(depth_model):
            raise WeightsMissingError(problem)
        return ["model", "vae"]

    @classmethod
    def IS_CHANGED(
        cls, motion_weights: str | None = None, depth_model: str | None = None, **_: object
    ) -> tuple[object, ...]:
        """Made again when a file is replaced under its name, or the device policy changes."""
        named = (motion_files().get(motion_weights or ""), depth_models().get(depth_model or ""))
        return (*(path and stamp(path) for path in named), str(host.network_device()))

    def apply(
        self,
        model: Any,  # noqa: ANN401 - ComfyUI's MODEL
        vae: Any,  # noqa: ANN401 - ComfyUI's VAE
        motion_weights: str,
        depth_model: str,
        depth_range: DepthRule,
        depth: Any = None,  # noqa: ANN401 - ComfyUI's DA3_MODEL
    ) -> "tuple[HostedModel]":
        """Raises WeightsError for a MODEL, VAE or file of another kind."""
        from ..live2diff_core.models.layout import lay_out
        from ..live2diff_core.models.translator import ModelDefaults, TranslationModel
        from .hosted import Computing, HostedModel
        from .unet import prediction_of, unet_of
        from .vae import HostAutoencoder

        autoencoder, prediction = HostAutoencoder(vae), prediction_of(model)
        motion_file = motion_files()[motion_weights]
        unet = unet_of(model, motion_file)
        dtype = next(unet.module.parameters()).dtype
        estimator, depth_patchers = _depth(depth_model, depth, dtype)
        translation = TranslationModel(
            name=f"Stable Diffusion 1.5 with {motion_file.stem}",
            unet=unet.module,
            autoencoder=autoencoder,
            depth=estimator,
            text_encoder=None,
            schedule=NoiseScheduleConfig(prediction=prediction),
            defaults=ModelDefaults(SIDE, SIDE, STEPS),
        )
        lay_out((unet.module, estimator), host.network_device())
        patchers = (unet.patcher, autoencoder.patcher, *depth_patchers)
        return (HostedModel(translation, patchers, Computing(depth_range)),)


def _depth(
    name: str,
    connected: Any,  # noqa: ANN401 - ComfyUI's DA3_MODEL, or None
    dtype: "torch.dtype",
) -> "tuple[DepthEstimator, tuple[Any, ...]]":
    """A depth estimator and ComfyUI's holder of it, if it has weights. Raises WeightsError."""
    from ..live2diff_core.models.depth import StructureMap
    from ..live2diff_core.weights.depth import load_depth

    if connected is not None:
        from .depth import depth_of

        resident = depth_of(connected, dtype)
        return resident.module, (resident.patcher,)
    if name == STRUCTURE:
        return StructureMap(), ()
    network = load_depth(depth_models()[name], host.storage_device(), dtype)
    return network, (host.Resident(network).patcher,)
