"""Kinds of weights files as data: what each is called, and what it is good for here."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Kind(str, Enum):
    """What a file holds. The values are stable names."""

    BUNDLED = "bundled"
    SD15 = "sd15"
    SD15_UNET = "sd15_unet"
    SD15_INPAINTING = "sd15_inpainting"
    SD2 = "sd2"
    SDXL = "sdxl"
    SD3 = "sd3"
    FLUX = "flux"
    LIVE2DIFF_MOTION = "live2diff_motion"
    ANIMATEDIFF_V1 = "animatediff_v1"
    ANIMATEDIFF_V2 = "animatediff_v2"
    ANIMATEDIFF_V3 = "animatediff_v3"
    ANIMATEDIFF_SDXL = "animatediff_sdxl"
    ANIMATEDIFF = "animatediff"
    MOTION_LORA = "motion_lora"
    LORA = "lora"
    LORA_SD15 = "lora_sd15"
    LORA_SD2 = "lora_sd2"
    LORA_SDXL = "lora_sdxl"
    LORA_SD3 = "lora_sd3"
    LORA_FLUX = "lora_flux"
    LORA_OTHER = "lora_other"
    LYCORIS = "lycoris"
    TAESD = "taesd"
    TAESD_ENCODER = "taesd_encoder"
    TAESD_DECODER = "taesd_decoder"
    TAESD_16 = "taesd_16"
    VAE = "vae"
    VAE_16 = "vae_16"
    MIDAS_HYBRID = "midas_hybrid"
    MIDAS_OTHER = "midas_other"
    DPT_HYBRID = "dpt_hybrid"
    DPT_OTHER = "dpt_other"
    DEPTH_ANYTHING = "depth_anything"
    DEPTH_ANYTHING_ORIGINAL = "depth_anything_original"
    CLIP_TEXT = "clip_text"
    TEXT_OTHER = "text_other"
    EMBEDDING = "embedding"
    EMBEDDING_SD2 = "embedding_sd2"
    EMBEDDING_SDXL = "embedding_sdxl"
    CONTROLNET = "controlnet"
    OTHER = "other"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class About:
    """name: as in "a NAME". use: what a file of the kind is for here, or what to take instead."""

    name: str
    use: str


_OTHER_BASE = "none here; take a Stable Diffusion 1.5 checkpoint, the motion weights need it"
_OTHER_LORA = "none here; take a version of it that was trained for Stable Diffusion 1.5"
_OTHER_MOTION = "none here; take Live2Diff's motion weights (live2diff.ckpt)"
_OTHER_DEPTH = "none here; take MiDaS dpt_hybrid_384.pt or a Depth Anything V2 folder"
_OTHER_VAE = "none here; take an autoencoder of Stable Diffusion 1.5 or TAESD"
_OTHER_TEXT = "none here; Stable Diffusion 1.5 works with CLIP ViT-L, which its file holds"
_OTHER_EMBEDDING = "none here; take one that was trained for Stable Diffusion 1.5"
_TAESD_HALF = "half of the fast autoencoder; needs the other half, {}, beside it"

ABOUT: Mapping[Kind, About] = {
    Kind.BUNDLED: About("model bundled with Live2Diff", "a whole model; used where none is named"),
    Kind.SD15: About("Stable Diffusion 1.5 checkpoint", "base"),
    Kind.SD15_UNET: About("UNet of Stable Diffusion 1.5", "base, with text encoder and VAE beside"),
    Kind.SD15_INPAINTING: About(
        "Stable Diffusion 1.5 inpainting checkpoint",
        "none here, it expects a mask; take the Stable Diffusion 1.5 checkpoint it came from",
    ),
    Kind.SD2: About("Stable Diffusion 2 checkpoint", _OTHER_BASE),
    Kind.SDXL: About("Stable Diffusion XL checkpoint", _OTHER_BASE),
    Kind.SD3: About("Stable Diffusion 3 checkpoint", _OTHER_BASE),
    Kind.FLUX: About("Flux checkpoint", _OTHER_BASE),
    Kind.LIVE2DIFF_MOTION: About("Live2Diff motion module", "motion weights"),
    Kind.ANIMATEDIFF_V1: About("AnimateDiff v1 motion module", _OTHER_MOTION),
    Kind.ANIMATEDIFF_V2: About("AnimateDiff v2 motion module", _OTHER_MOTION),
    Kind.ANIMATEDIFF_V3: About("AnimateDiff v3 motion module", _OTHER_MOTION),
    Kind.ANIMATEDIFF_SDXL: About("AnimateDiff SDXL motion module", _OTHER_MOTION),
    Kind.ANIMATEDIFF: About("AnimateDiff motion module", _OTHER_MOTION),
    Kind.MOTION_LORA: About(
        "motion LoRA for AnimateDiff",
        "none here, it changes AnimateDiff's motion weights; take a LoRA for pictures",
    ),
    Kind.LORA: About("LoRA for Stable Diffusion 1.5 or 2", "LoRA, if it was made for 1.5"),
    Kind.LORA_SD15: About("LoRA for Stable Diffusion 1.5", "LoRA"),
    Kind.LORA_SD2: About("LoRA for Stable Diffusion 2", _OTHER_LORA),
    Kind.LORA_SDXL: About("LoRA for Stable Diffusion XL", _OTHER_LORA),
    Kind.LORA_SD3: About("LoRA for Stable Diffusion 3", _OTHER_LORA),
    Kind.LORA_FLUX: About("LoRA for Flux", _OTHER_LORA),
    Kind.LORA_OTHER: About("LoRA for another kind of network", _OTHER_LORA),
    Kind.LYCORIS: About(
        "LyCORIS file", "none here, only LoRA and LoCon are; ask its author for one of these"
    ),
    Kind.TAESD: About("TAESD autoencoder", "autoencoder, fast"),
    Kind.TAESD_ENCODER: About("TAESD encoder", _TAESD_HALF.format("taesd_decoder")),
    Kind.TAESD_DECODER: About("TAESD decoder", _TAESD_HALF.format("taesd_encoder")),
    Kind.TAESD_16: About("TAESD for 16 latent channels (SD3, Flux)", _OTHER_VAE),
    Kind.VAE: About(
        "Stable Diffusion VAE", "autoencoder (that of SDXL has the same keys and other latents)"
    ),
    Kind.VAE_16: About("VAE with 16 latent channels (SD3, Flux)", _OTHER_VAE),
    Kind.MIDAS_HYBRID: About("MiDaS DPT-hybrid depth model", "depth"),
    Kind.MIDAS_OTHER: About("MiDaS depth model other than DPT-hybrid", _OTHER_DEPTH),
    Kind.DPT_HYBRID: About("DPT-hybrid depth model in transformers' names", "depth"),
    Kind.DPT_OTHER: About("DPT depth model in transformers' names", _OTHER_DEPTH),
    Kind.DEPTH_ANYTHING: About("Depth Anything model in transformers' names", "depth"),
    Kind.DEPTH_ANYTHING_ORIGINAL: About(
        "Depth Anything model (V1 or V2) in its original names",
        "none here in these names; take the transformers folder of the same model (…-hf)",
    ),
    Kind.CLIP_TEXT: About("CLIP text encoder", "text encoder"),
    Kind.TEXT_OTHER: About("text encoder of another model", _OTHER_TEXT),
    Kind.EMBEDDING: About("textual inversion for Stable Diffusion 1.5", "textual inversion"),
    Kind.EMBEDDING_SD2: About("textual inversion for Stable Diffusion 2", _OTHER_EMBEDDING),
    Kind.EMBEDDING_SDXL: About("textual inversion for Stable Diffusion XL", _OTHER_EMBEDDING),
    Kind.CONTROLNET: About("ControlNet", "none here; depth steers the motion weights"),
    Kind.OTHER: About("model of another family", "none here"),
    Kind.UNKNOWN: About(
        "file of an unknown kind",
        "not known; its keys are none of those of Stable Diffusion, LoRA, motion, VAE or depth",
    ),
}

# Kin of LoRA that is more or something else than a product of two factors, which nothing here can
# merge; the keys that tell them.
LYCORIS = {
    "LoHa": r".*\.hada_.*",
    "LoKr": r".*\.lokr_.*",
    "LoCon in Tucker form": r".*\.lora_mid\..*",
    "DoRA": r".*\.(?:dora_scale|lora_magnitude_vector.*)",
    "OFT": r".*\.b?oft_.*",
    "GLoRA": r".*\.[ab][12]\.weight",
    "(IA)3": r".*\.on_input",
    "full differences": r".*\.(?:diff|diff_b|w_norm|b_norm)",
    "LoRA of token embeddings": r".*\.lora_embedding_[AB].*",
    "LoRA with biases": r".*\.lora_(?:A|B|up|down)(?:\.[^.]+)?\.bias",
}
