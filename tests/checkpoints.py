"""Weights files of every kind with their real key names and shapes, at no cost.

Files have their full size and hold nothing: a hole in the disk for safetensors, one number that is
repeated for pickles. Whoever reads more than the header would be told by the clock.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from live2diff_core.weights.files import TensorFile, TensorInfo
from live2diff_core.weights.kinds import Kind

DATA = Path(__file__).parent / "data"
Shapes = dict[str, tuple[int, ...]]
CODES = {torch.float16: "F16", torch.float32: "F32", torch.bfloat16: "BF16", torch.int64: "I64"}
UNET, VAE, CLIP = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."


# ---- writing


def write_safetensors(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtypes: torch.dtype | Mapping[str, torch.dtype] = torch.float16,
    metadata: dict[str, str] | None = None,
) -> Path:
    """A sparse file: the header, then a hole of the tensors' size."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for key, shape in shapes.items():
        dtype = dtypes if isinstance(dtypes, torch.dtype) else dtypes[key]
        start, end = end, end + torch.Size(shape).numel() * dtype.itemsize
        header[key] = {"dtype": CODES[dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return path


def hollow(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors of one stored number each."""
    return {key: torch.zeros((), dtype=dtype).expand(shape) for key, shape in shapes.items()}


def write_pickle(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype = torch.float16,
    wrap: bool = False,
    legacy: bool = False,
) -> Path:
    """A torch file, bare or in a trainer's dictionary; legacy: as torch wrote before 1.6."""
    tensors = hollow(shapes, dtype)
    content = {"epoch": 3, "state_dict": tensors} if wrap else tensors
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def write_component(
    folder: Path, shapes: Shapes, config: Mapping[str, Any], name: str = ""
) -> None:
    """A folder of diffusers or transformers."""
    folder.mkdir(parents=True)
    write = write_pickle if name.endswith(".bin") else write_safetensors
    write(folder / (name or "diffusion_pytorch_model.safetensors"), shapes)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def tensor_file(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype = torch.float16):
    """An opened file, without a file."""
    infos = {key: TensorInfo(tuple(shape), dtype) for key, shape in shapes.items()}
    return TensorFile(Path("some.safetensors"), "safetensors", infos, {})


# ---- key tables


def read_tables() -> dict[str, Shapes]:
    """Sampled key tables of original files, and the whole ones of SD 1.5 and Live2Diff."""
    sampled = json.loads((DATA / "kinds.json").read_text(encoding="utf-8"))
    whole = json.loads((DATA / "reference_shapes.json").read_text(encoding="utf-8"))
    whole = {"unet": whole["sd15"], "live2diff": whole["live2diff"]}
    return {
        name: {key: tuple(shape) for key, shape in table.items()}
        for name, table in (sampled | whole).items()
    }


TABLES = read_tables()


def below(prefix: str, shapes: Shapes) -> Shapes:
    return {f"{prefix}{key}": shape for key, shape in shapes.items()}


def without(shapes: Shapes, part: str) -> Shapes:
    return {key: shape for key, shape in shapes.items() if part not in key}


def with_input(shapes: Shapes, channels: int) -> Shapes:
    """The same network for latents of other channels."""
    starts = (f"{UNET}input_blocks.0.0.weight", "conv_in.weight")
    return {
        key: (shape[0], channels, *shape[2:]) if key in starts else shape
        for key, shape in shapes.items()
    }


def bare(shapes: Shapes) -> Shapes:
    return {key.removeprefix(UNET): shape for key, shape in shapes.items()}


def text_model(width: int, root: str = "text_model.") -> Shapes:
    layer = f"{root}encoder.layers.0."
    return {
        f"{root}embeddings.token_embedding.weight": (49408, width),
        f"{root}embeddings.position_embedding.weight": (77, width),
        f"{layer}self_attn.q_proj.weight": (width, width),
        f"{layer}mlp.fc1.weight": (4 * width, width),
        f"{root}final_layer_norm.weight": (width,),
    }


def whole_sd15() -> Shapes:
    parts = (below(VAE, TABLES["vae"]), below(CLIP, text_model(768)))
    return TABLES["sd15"] | parts[0] | parts[1]


def taesd_encoder(channels: int = 4) -> Shapes:
    """Layers of the encoder's sequence: a convolution, blocks, three halvings, a convolution."""
    blocks = {f"{i}.conv.{j}.weight": (64, 64, 3, 3) for i in (1, 3, 5, 8, 13) for j in (0, 2, 4)}
    halvings = {f"{i}.weight": (64, 64, 3, 3) for i in (2, 6, 10)}
    ends = {"0.weight": (64, 3, 3, 3), "0.bias": (64,), "14.weight": (channels, 64, 3, 3)}
    return blocks | halvings | ends


def taesd_decoder(channels: int = 4) -> Shapes:
    """The decoder's, which begins with a clamp that holds nothing."""
    blocks = {f"{i}.conv.{j}.weight": (64, 64, 3, 3) for i in (3, 8, 13, 18) for j in (0, 2, 4)}
    doublings = {f"{i}.weight": (64, 64, 3, 3) for i in (7, 12, 17)}
    ends = {"1.weight": (64, channels, 3, 3), "1.bias": (64,), "19.weight": (3, 64, 3, 3)}
    return blocks | doublings | ends


def with_positions(shapes: Shapes, length: int) -> Shapes:
    return {k: (1, length, s[2]) if k.endswith(".pe") else s for k, s in shapes.items()}


def animatediff(length: int, middle: bool = False) -> Shapes:
    """Motion modules in AnimateDiff's names, which are those of Live2Diff without its depth."""
    shapes = with_positions(without(TABLES["live2diff"], "flow_conv_in"), length)
    deepest = "down_blocks.3.motion_modules.0."
    added = {
        key.replace(deepest, "mid_block.motion_modules.0."): shape
        for key, shape in shapes.items()
        if key.startswith(deepest)
    }
    return shapes | added if middle else shapes


def animatediff_sdxl() -> Shapes:
    """Three blocks, the widest in the middle."""
    shapes = animatediff(32)
    up = {key: s for key, s in shapes.items() if key.startswith("up_blocks.3.")}
    kept = {k: s for k, s in shapes.items() if not k.startswith(("up_blocks.", "down_blocks.3."))}
    return kept | {key.replace("up_blocks.3.", "up_blocks.2."): s for key, s in up.items()}


# ---- LoRAs: (outputs, inputs) by layer; attention to the text is what tells bases apart

DEEP = "down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q"  # only SDXL has a second one


def unet_layers(width: int, text: int) -> Shapes:
    block = "down_blocks.0.attentions.0.transformer_blocks.0."
    return {f"{block}attn1.to_q": (width, width), f"{block}attn2.to_k": (width, text)}


def text_layers(width: int) -> Shapes:
    return {"text_model.encoder.layers.0.self_attn.q_proj": (width, width)}


def factors(
    layers: Mapping[str, tuple[int, ...]], down: str, up: str, rank: int = 4, alpha: str = ""
) -> Shapes:
    """Two factors a layer, (rank, inputs) and (outputs, rank), and perhaps an alpha."""
    shapes: Shapes = {}
    for layer, (outputs, inputs, *kernel) in layers.items():
        shapes[layer + down] = (rank, inputs, *kernel)
        shapes[layer + up] = (outputs, rank, *(1 for _ in kernel))
        if alpha:
            shapes[layer + alpha] = ()
    return shapes


def kohya(unet: Mapping[str, tuple[int, ...]], **text: Mapping[str, tuple[int, ...]]) -> Shapes:
    """kohya's names; text encoders by prefix (te, te1, te2)."""
    layers = {f"lora_unet_{k}": s for k, s in unet.items()}
    for name, of_text in text.items():
        layers |= {f"lora_{name}_{k}": s for k, s in of_text.items()}
    plain = {key.replace(".", "_"): shape for key, shape in layers.items()}
    return factors(plain, ".lora_down.weight", ".lora_up.weight", alpha=".alpha")


def peft(layers: Mapping[str, tuple[int, ...]], prefix: str = "unet.") -> Shapes:
    return factors(below(prefix, dict(layers)), ".lora_A.weight", ".lora_B.weight")


def processors(layers: Mapping[str, tuple[int, ...]]) -> Shapes:
    """diffusers' first format: adapters of attention processors."""
    named = {key.replace(".to_", ".processor.to_"): shape for key, shape in layers.items()}
    return factors(named, "_lora.down.weight", "_lora.up.weight")


def loha(layers: Mapping[str, tuple[int, ...]], rank: int = 4) -> Shapes:
    shapes: Shapes = {}
    for layer, (outputs, inputs) in layers.items():
        name = f"lora_unet_{layer.replace('.', '_')}"
        for half in ("w1", "w2"):
            shapes[f"{name}.hada_{half}_a"] = (outputs, rank)
            shapes[f"{name}.hada_{half}_b"] = (rank, inputs)
    return shapes


def lokr(layers: Mapping[str, tuple[int, ...]], factor: int = 8) -> Shapes:
    shapes: Shapes = {}
    for layer, (outputs, inputs) in layers.items():
        name = f"lora_unet_{layer.replace('.', '_')}"
        shapes[f"{name}.lokr_w1"] = (factor, factor)
        shapes[f"{name}.lokr_w2_a"] = (outputs // factor, 4)
        shapes[f"{name}.lokr_w2_b"] = (4, inputs // factor)
    return shapes


def dora(shapes: Shapes) -> Shapes:
    ups = {key: shape for key, shape in shapes.items() if key.endswith(".lora_up.weight")}
    return shapes | {k.replace("lora_up.weight", "dora_scale"): (s[0], 1) for k, s in ups.items()}


SD15, SD2, SDXL = unet_layers(320, 768), unet_layers(320, 1024), unet_layers(640, 2048)
FLUX_LAYERS = {
    "single_transformer_blocks.0.attn.to_q": (3072, 3072),
    "transformer_blocks.0.attn.to_q": (3072, 3072),
}
MODULE = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0."
MOTION_LAYERS = {f"{MODULE}attention_blocks.0.to_q": (320, 320)}


def wrapped(shapes: Shapes, inside: Iterable[str] = ("motion_modules.",)) -> Shapes:
    """`module.` as DataParallel leaves it, before the key and inside it."""
    for part in inside:
        shapes = {key.replace(part, f"{part}module."): shape for key, shape in shapes.items()}
    return below("module.", shapes)


LORAS: dict[str, tuple[Kind, Shapes]] = {
    "kohya": (Kind.LORA_SD15, kohya(SD15, te=text_layers(768))),
    "kohya, text only": (Kind.LORA_SD15, kohya({}, te=text_layers(768))),
    "kohya, self-attention only": (
        Kind.LORA,
        kohya({key: shape for key, shape in SD15.items() if "attn1" in key}),
    ),
    "LoCon": (Kind.LORA_SD15, kohya({"down_blocks.0.attentions.0.proj_in": (320, 320, 1, 1)})),
    "kohya for 2": (Kind.LORA_SD2, kohya(SD2, te=text_layers(1024))),
    "kohya for 2, text only": (Kind.LORA_SD2, kohya({}, te=text_layers(1024))),
    "kohya for XL": (Kind.LORA_SDXL, kohya(SDXL, te1=text_layers(768), te2=text_layers(1280))),
    "kohya for XL, no text": (Kind.LORA_SDXL, kohya({DEEP: (640, 640)})),
    "kohya for XL, text only": (Kind.LORA_SDXL, kohya({}, te1=text_layers(768))),
    "kohya for Flux": (
        Kind.LORA_FLUX,
        kohya({"double_blocks.0.img_attn.proj": (3072, 3072)}, te1=text_layers(768)),
    ),
    "kohya for SD3": (
        Kind.LORA_SD3,
        kohya({"joint_blocks.0.x_block.attn.qkv": (4608, 1536)}, te1=text_layers(768)),
    ),
    "peft": (Kind.LORA_SD15, peft(SD15)),
    "peft, text too": (Kind.LORA_SD15, peft(SD15) | peft(text_layers(768), "text_encoder.")),
    "peft, bare": (Kind.LORA_SD15, peft(SD15, "base_model.model.")),
    "peft for XL": (Kind.LORA_SDXL, peft(SDXL)),
    "peft for Flux": (Kind.LORA_FLUX, peft(FLUX_LAYERS, "transformer.")),
    "peft for Qwen-Image": (
        Kind.LORA_OTHER,
        peft({"transformer_blocks.0.attn.to_q": (3072, 3072)}, "transformer."),
    ),
    "peft for SD3": (
        Kind.LORA_SD3,
        peft({"transformer_blocks.0.attn.to_q": (1536, 1536)}, "transformer."),
    ),
    "diffusers": (Kind.LORA_SD15, processors(SD15)),
    "LoHa": (Kind.LYCORIS, loha(SD15)),
    "LoKr": (Kind.LYCORIS, lokr(SD15)),
    "DoRA": (Kind.LYCORIS, dora(kohya(SD15))),
    "LoKr for XL": (Kind.LORA_SDXL, lokr(SDXL)),
    "LoHa for 2": (Kind.LORA_SD2, loha(SD2)),
    "motion LoRA": (Kind.MOTION_LORA, processors(MOTION_LAYERS)),
    "motion LoRA, peft": (Kind.MOTION_LORA, peft(MOTION_LAYERS)),
}

MODELS: dict[str, tuple[Kind, Shapes]] = {
    "SD 1.5": (Kind.SD15, TABLES["sd15"]),
    "SD 1.5 with VAE and text encoder": (Kind.SD15, whole_sd15()),
    "SD 1.5, diffusers' names": (Kind.SD15_UNET, TABLES["unet"]),
    "SD 1.5, bare": (Kind.SD15_UNET, bare(TABLES["sd15"])),
    "inpainting": (Kind.SD15_INPAINTING, with_input(whole_sd15(), 9)),
    "inpainting, diffusers' names": (Kind.SD15_INPAINTING, with_input(TABLES["unet"], 9)),
    "InstructPix2Pix": (Kind.OTHER, with_input(TABLES["sd15"], 8)),
    "SD 2": (Kind.SD2, TABLES["sd2"]),
    "SD 2, bare": (Kind.SD2, bare(TABLES["sd2"])),
    "SD 2 inpainting": (Kind.SD2, with_input(TABLES["sd2"], 9)),
    "SDXL": (Kind.SDXL, TABLES["sdxl"] | below("conditioner.embedders.0.transformer.", {})),
    "SDXL, bare": (Kind.SDXL, bare(TABLES["sdxl"])),
    "SDXL inpainting": (Kind.SDXL, with_input(TABLES["sdxl"], 9)),
    "SDXL refiner": (Kind.SDXL, TABLES["sdxl_refiner"]),
    "SD 3": (Kind.SD3, TABLES["sd3"]),
    "Flux": (Kind.FLUX, TABLES["flux"]),
    "Flux, whole": (Kind.FLUX, below(UNET, TABLES["flux"])),
    "Live2Diff": (Kind.LIVE2DIFF_MOTION, TABLES["live2diff"]),
    "Live2Diff with module.": (Kind.LIVE2DIFF_MOTION, wrapped(TABLES["live2diff"])),
    "Live2Diff with SD keys": (Kind.LIVE2DIFF_MOTION, TABLES["live2diff"] | TABLES["unet"]),
    "Live2Diff without tables": (Kind.LIVE2DIFF_MOTION, without(TABLES["live2diff"], ".pe")),
    "AnimateDiff v1": (Kind.ANIMATEDIFF_V1, animatediff(24)),
    "AnimateDiff v2": (Kind.ANIMATEDIFF_V2, animatediff(32, middle=True)),
    "AnimateDiff v3": (Kind.ANIMATEDIFF_V3, wrapped(animatediff(32), ())),
    "AnimateDiff SDXL": (Kind.ANIMATEDIFF_SDXL, animatediff_sdxl()),
    "AnimateDiff of unknown version": (Kind.ANIMATEDIFF, without(animatediff(24), ".pe")),
    "TAESD encoder": (Kind.TAESD_ENCODER, taesd_encoder()),
    "TAESD decoder": (Kind.TAESD_DECODER, taesd_decoder()),
    "TAESD, both": (
        Kind.TAESD,
        below("taesd_encoder.", taesd_encoder()) | below("taesd_decoder.", taesd_decoder()),
    ),
    "TAESD 3 encoder": (Kind.TAESD_16, taesd_encoder(16)),
    "TAESD 3 decoder": (Kind.TAESD_16, taesd_decoder(16)),
    "VAE": (Kind.VAE, TABLES["vae"]),
    "VAE, prefixed": (Kind.VAE, below(VAE, TABLES["vae"])),
    "VAE of 16 channels": (Kind.VAE_16, TABLES["vae16"]),
    "DPT-hybrid": (Kind.MIDAS_HYBRID, TABLES["midas_hybrid"]),
    "DPT-large": (Kind.MIDAS_OTHER, TABLES["midas_large"]),
    "MiDaS BEiT": (Kind.MIDAS_OTHER, TABLES["midas_beit"]),
    "MiDaS small": (Kind.MIDAS_OTHER, TABLES["midas_small"]),
    "Depth Anything small": (Kind.DEPTH_ANYTHING_ORIGINAL, TABLES["depth_anything_small"]),
    "Depth Anything base": (Kind.DEPTH_ANYTHING_ORIGINAL, TABLES["depth_anything_base"]),
    "CLIP": (Kind.CLIP_TEXT, text_model(768)),
    "CLIP without its prefix": (Kind.CLIP_TEXT, text_model(768, "")),
    "OpenCLIP H": (Kind.TEXT_OTHER, text_model(1024)),
    "OpenCLIP bigG": (Kind.TEXT_OTHER, text_model(1280)),
    "ControlNet": (Kind.CONTROLNET, TABLES["controlnet"]),
    "IP-Adapter": (Kind.OTHER, {"ip_adapter.1.to_k_ip.weight": (320, 768)}),
    "textual inversion, A1111": (Kind.EMBEDDING, {"string_to_param.*": (8, 768)}),
    "textual inversion, safetensors": (Kind.EMBEDDING, {"emb_params": (8, 768)}),
    "textual inversion, diffusers": (Kind.EMBEDDING, {"<cat-toy>": (768,)}),
    "textual inversion for 2": (Kind.EMBEDDING_SD2, {"emb_params": (8, 1024)}),
    "textual inversion for XL": (
        Kind.EMBEDDING_SDXL,
        {"clip_l": (8, 768), "clip_g": (8, 1280)},
    ),
    "something else": (Kind.UNKNOWN, {"model.0.weight": (64, 3, 3, 3), "model.1.bias": (64,)}),
    "nothing": (Kind.UNKNOWN, {}),
}
CASES = MODELS | LORAS
