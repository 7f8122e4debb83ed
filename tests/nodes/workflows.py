"""The workflows of the pack as files, and the nodes that are in them."""

from pathlib import Path

from tests.nodes.pages import CLASSES, specs
from tests.pack import ROOT

UI = sorted((ROOT / "workflows").glob("*.json"))
APP = ".app"  # at the end of the names of workflows that open as an app
APPS = [path for path in UI if path.stem.endswith(APP)]
API = sorted((ROOT / "workflows" / "api").glob("*.json"))
NOTES = {"MarkdownNote": ({"text": "STRING"}, [])}
PICTURE_LIMIT = 60_000  # bytes
TITLE = 30  # pixels above a node
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
ANYTHING = "*"  # a type

# Nodes of ComfyUI: inputs in their order, and outputs.
CORE = {
    "CheckpointLoaderSimple": ({"ckpt_name": "COMBO"}, ["MODEL", "CLIP", "VAE"]),
    "CLIPTextEncode": ({"clip": "CLIP", "text": "STRING"}, ["CONDITIONING"]),
    "CreateVideo": ({"images": "IMAGE", "fps": "FLOAT", "audio": "AUDIO"}, ["VIDEO"]),
    "GetVideoComponents": ({"video": "VIDEO"}, ["IMAGE", "AUDIO", "FLOAT"]),
    "ImageFlip": ({"image": "IMAGE", "flip_method": "COMBO"}, ["IMAGE"]),
    "ImageFromBatch": ({"image": "IMAGE", "batch_index": "INT", "length": "INT"}, ["IMAGE"]),
    "ImageScaleBy": (
        {"image": "IMAGE", "upscale_method": "COMBO", "scale_by": "FLOAT"},
        ["IMAGE"],
    ),
    "LoadVideo": ({"file": "COMBO"}, ["VIDEO"]),
    "LoraLoader": (
        {
            "model": "MODEL",
            "clip": "CLIP",
            "lora_name": "COMBO",
            "strength_model": "FLOAT",
            "strength_clip": "FLOAT",
        },
        ["MODEL", "CLIP"],
    ),
    "PreviewAny": ({"source": ANYTHING}, []),
    "PreviewImage": ({"images": "IMAGE"}, []),
    "SaveImage": ({"images": "IMAGE", "filename_prefix": "STRING"}, []),
    "SaveVideo": (
        {"video": "VIDEO", "filename_prefix": "STRING", "format": "COMBO", "codec": "COMBO"},
        [],
    ),
    "VAELoader": ({"vae_name": "COMBO"}, ["VAE"]),
}


def type_name(kind) -> str:
    return "COMBO" if isinstance(kind, list) else kind


def signature(name: str) -> tuple[dict[str, str], list[str]]:
    """Inputs (name -> type, in order) and outputs of a node, ours or ComfyUI's."""
    if name in CLASSES:
        cls = CLASSES[name]
        return {n: type_name(kind) for n, (kind, _) in specs(cls).items()}, list(cls.RETURN_TYPES)
    return {**CORE, **NOTES}[name]


def api_twin(path: Path) -> Path:
    name = path.stem.removeprefix("live2diff-").removesuffix(APP).replace("-", "_")
    return path.parent / "api" / f"{name}.json"


def names(paths):
    return [path.stem for path in paths]
