"""What tells one kind of weights file from another: keys and shapes, as a table.

Keys are compared after a trainer's `module.` is taken out. For every layer that a LoRA changes
there is one key more, `lora:LAYER` with underscores for dots, whose shape is that of the layer's
input: (channels,) or (channels, kernel, kernel).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from .kinds import LYCORIS, Kind

Size = int | None  # None: any
Shape = tuple[Size, ...]


@dataclass(frozen=True, slots=True)
class Clue:
    """A key that is there: a regular expression for the whole key and, if it tells, its shape."""

    key: str
    shape: Shape | None = None


@dataclass(frozen=True, slots=True)
class Signature:
    """A kind of file: all clues are there, and at most so many keys. name: if not the kind's."""

    kind: Kind
    clues: tuple[Clue, ...]
    name: str | None = None
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Detail:
    """What else a key tells. text may hold {count} of such keys and {sizes} of their axis.

    otherwise: said where no such key is there. kind: said of this kind of file only.
    """

    key: str
    text: str
    axis: int = 0
    otherwise: str = ""
    kind: Kind | None = None


# How the same places of a UNet are called: in a whole checkpoint, alone, and by diffusers.
CHECKPOINT = {
    "start": r"model\.diffusion_model\.input_blocks\.0\.0\.weight",
    "label": r"model\.diffusion_model\.label_emb\.0\.0\.weight",
    "projection": r"model\.diffusion_model\.input_blocks\.\d+\.1\.proj_in\.weight",
    "text": r"model\.diffusion_model\.(?:input_blocks|middle_block)\..*\.attn2\.to_k\.weight",
}
ORIGINAL = {
    place: key.replace(r"model\.diffusion_model\.", r"(?:diffusion_model\.)?")
    for place, key in CHECKPOINT.items()
}
DIFFUSERS = {
    "start": r"conv_in\.weight",
    "label": r"add_embedding\.linear_1\.weight",
    "projection": r"down_blocks\.\d\.attentions\.0\.proj_in\.weight",
    "text": r"(?:down|mid|up)_block.*\.attentions\..*\.attn2\.to_k\.weight",
}

CONV, LINEAR = (None, None, 1, 1), (None, None)


def _input(channels: Size) -> Shape:
    return (None, channels, 3, 3)


# Networks of Stable Diffusion's form. 1.x projects with convolutions, 2 and XL with matrices; XL
# alone has a label; so the widths of a network do not matter where its form tells.
_UNETS: tuple[tuple[Kind, str, dict[str, Shape]], ...] = (
    (Kind.SDXL, "Stable Diffusion XL refiner", {"label": LINEAR, "text": (None, 1280)}),
    (Kind.SDXL, "Stable Diffusion XL inpainting", {"label": LINEAR, "start": _input(9)}),
    (Kind.SD2, "Stable Diffusion 2 unCLIP", {"label": LINEAR, "text": (None, 1024)}),
    (Kind.SDXL, "Stable Diffusion XL", {"label": LINEAR, "start": _input(4)}),
    (Kind.SD2, "Stable Diffusion 2 depth", {"projection": LINEAR, "start": _input(5)}),
    (Kind.SD2, "Stable Diffusion 2 upscaling", {"projection": LINEAR, "start": _input(7)}),
    (Kind.SD2, "Stable Diffusion 2 inpainting", {"projection": LINEAR, "start": _input(9)}),
    (Kind.SD2, "Stable Diffusion 2", {"projection": LINEAR, "start": _input(4)}),
    (
        Kind.SD15_INPAINTING,
        "Stable Diffusion 1.5 inpainting",
        {"projection": CONV, "start": _input(9)},
    ),
    (
        Kind.OTHER,
        "InstructPix2Pix (Stable Diffusion 1.5)",
        {"projection": CONV, "start": _input(8)},
    ),
    (Kind.SD15, "Stable Diffusion 1.5", {"projection": CONV, "start": _input(4)}),
)


def _unets() -> Iterator[Signature]:
    for kind, name, shapes in _UNETS:
        for places in (CHECKPOINT, ORIGINAL, DIFFUSERS):
            alone = places is not CHECKPOINT
            clues = {"start": None, **shapes}
            yield Signature(
                Kind.SD15_UNET if alone and kind is Kind.SD15 else kind,
                tuple(Clue(places[place], shape) for place, shape in clues.items()),
                f"UNet of {name}" if alone else f"{name} checkpoint",
            )


_PREFIX = r"(?:model\.diffusion_model\.)?"
_MODULE = r"motion_modules\.\d\.(?:temporal_transformer\.)?"
_MOTION = rf"(?:down|mid|up)_blocks?\.(?:\d\.)?{_MODULE}"
_TABLE = _MOTION + r"transformer_blocks\.0\.(?:attention_blocks\.0\.pos_encoder|pos_embed)\.pe"
_UNET_BLOCK = r"(?:down_blocks|mid_block|up_blocks|input_blocks|middle_block|output_blocks)_.*"
_TEXT_KEY = r"lora:.*attn2_(?:processor_)?to_k"
_TEXT_LAYER = r"lora:.*encoder_layers_\d+_self_attn_(?:q_proj|to_q)"
_TOKENS = r"(?:.*\.)?embeddings\.token_embedding\.weight"
_DPT = r"pretrained\.model\."


def _one(kind: Kind, key: str, shape: Shape | None = None, name: str | None = None) -> Signature:
    return Signature(kind, (Clue(key, shape),), name)


_SINGLE_VECTOR = r"[^.]+"
_ADAPTERS = (
    _one(Kind.OTHER, r"(?:ip_adapter\.\d+|image_proj(?:_model)?)\..*", name="IP-Adapter"),
    _one(Kind.OTHER, r"(?:adapter\.)?body\.0\.(?:in_conv|block1|resnets)\..*", name="T2I-Adapter"),
    _one(Kind.CONTROLNET, r"control_model\..*"),
    _one(Kind.CONTROLNET, r"(?:controlnet_cond_embedding|controlnet_down_blocks)\..*"),
    _one(Kind.CONTROLNET, r"input_hint_block\..*"),
    _one(Kind.CONTROLNET, r"lora_controlnet", name="ControlNet of low rank (Control-LoRA)"),
)
_LORAS = (
    _one(Kind.MOTION_LORA, r"lora:.*motion_modules_.*"),
    _one(Kind.LORA_FLUX, r"lora:.*(?:double_blocks|single_blocks|single_transformer_blocks)_.*"),
    _one(Kind.LORA_SD3, r"lora:.*joint_blocks_.*"),
    _one(Kind.LORA_SD3, r"lora:.*transformer_blocks_\d+_attn_(?:to_q|add_q_proj)", (1536,)),
    _one(Kind.LORA_SD3, r"lora:.*transformer_blocks_\d+_attn_(?:to_q|add_q_proj)", (2432,)),
    _one(Kind.LORA_SDXL, _TEXT_KEY, (2048,)),
    _one(Kind.LORA_SDXL, _TEXT_KEY, (1280,), "LoRA for the Stable Diffusion XL refiner"),
    _one(Kind.LORA_SD2, _TEXT_KEY, (1024,)),
    _one(Kind.LORA_SD15, _TEXT_KEY, (768,)),
    _one(Kind.LORA_SDXL, rf"lora:.*{_UNET_BLOCK}transformer_blocks_[1-9]_.*"),
    _one(Kind.LORA_SDXL, r"lora:(?:lora_te[12]|text_encoder_2)_.*"),
    _one(Kind.LORA_SD2, _TEXT_LAYER, (1024,)),
    _one(Kind.LORA_SD15, _TEXT_LAYER, (768,)),
    _one(Kind.LORA_SD15, rf"lora:.*{_UNET_BLOCK}proj_in", (None, 1, 1)),
    _one(Kind.LORA, rf"lora:.*{_UNET_BLOCK}"),
    _one(Kind.LORA, r"lora:.*encoder_layers_.*"),
    _one(Kind.LORA_OTHER, r"lora:.*"),
)


def _loras() -> Iterator[Signature]:
    for signature in _LORAS:
        if signature.kind in (Kind.LORA, Kind.LORA_SD15):
            for form, key in LYCORIS.items():
                yield Signature(
                    Kind.LYCORIS, (Clue(key), *signature.clues), f"LyCORIS file ({form})"
                )
        yield signature


_MOTIONS = (
    _one(Kind.LIVE2DIFF_MOTION, r"flow_conv_in\..*"),
    _one(Kind.ANIMATEDIFF_SDXL, rf"up_blocks\.2\.{_MODULE}norm\.weight", (320,)),
    _one(Kind.ANIMATEDIFF_V2, r"mid_block\.motion_modules\..*"),
    _one(Kind.ANIMATEDIFF_V1, _TABLE, (1, 24, None)),
    _one(Kind.ANIMATEDIFF_V3, _TABLE, (1, 32, None)),
    _one(Kind.ANIMATEDIFF, rf"{_MOTION}.*"),
)
_TRANSFORMERS = (
    _one(Kind.SD3, rf"{_PREFIX}joint_blocks\.0\..*"),
    Signature(
        Kind.SD3,
        (
            Clue(r"pos_embed\.pos_embed"),
            Clue(r"transformer_blocks\.0\.attn\.add_k_proj\.weight"),
        ),
        "transformer of Stable Diffusion 3",
    ),
    _one(Kind.FLUX, rf"{_PREFIX}single_stream_modulation\..*", name="Flux 2 checkpoint"),
    _one(Kind.OTHER, rf"{_PREFIX}distilled_guidance_layer\..*", name="Chroma checkpoint"),
    _one(Kind.OTHER, rf"{_PREFIX}txt_in\.individual_token_refiner\..*", name="HunyuanVideo model"),
    _one(Kind.FLUX, rf"{_PREFIX}double_blocks\.0\.img_attn\..*"),
    _one(Kind.FLUX, r"single_transformer_blocks\.0\.proj_mlp\.weight", name="transformer of Flux"),
    _one(Kind.OTHER, rf"{_PREFIX}double_layers\.0\.attn\..*", name="AuraFlow checkpoint"),
    _one(Kind.OTHER, rf"{_PREFIX}clip_txt_mapper\.weight", name="Stable Cascade model"),
    _one(Kind.OTHER, rf"{_PREFIX}down_blocks\.1\.0\.channelwise\..*", name="Stable Cascade model"),
    _one(Kind.OTHER, rf"{_PREFIX}t_block\.1\.weight", name="PixArt checkpoint"),
    _one(Kind.OTHER, rf"{_PREFIX}head\.modulation", name="Wan video model"),
    _one(Kind.OTHER, rf"{_PREFIX}patchify_proj\.weight", name="LTX video model"),
    _one(Kind.OTHER, rf"{_PREFIX}cap_embedder\.[01]\.weight", name="Lumina checkpoint"),
    _one(Kind.OTHER, r"condition_embedder\.text_embedder\..*", name="Wan video model"),
    _one(Kind.OTHER, r"adaln_single\.emb\..*", name="PixArt, Sana or LTX model"),
    _one(Kind.OTHER, rf"{_PREFIX}txt_norm\.weight", name="Qwen-Image checkpoint"),
    _one(
        Kind.OTHER,
        r".*\.(?:time_stack|temporal_transformer_blocks)\..*",
        name="Stable Video Diffusion model",
    ),
)
_AUTOENCODERS = (
    Signature(
        Kind.TAESD,
        (Clue(r"encoder\.layers\.0\.weight"), Clue(r"decoder\.layers\.0\.weight", _input(4))),
    ),
    Signature(
        Kind.TAESD,
        (Clue(r"taesd_encoder\.0\.weight"), Clue(r"taesd_decoder\.1\.weight", _input(4))),
    ),
    Signature(
        Kind.TAESD_16,
        (Clue(r"encoder\.layers\.0\.weight"), Clue(r"decoder\.layers\.0\.weight", _input(16))),
    ),
    Signature(
        Kind.TAESD_ENCODER,
        (
            Clue(r"(?:taesd_encoder\.)?0\.weight", _input(3)),
            Clue(r"(?:taesd_encoder\.)?14\.weight", (4, None, 3, 3)),
        ),
    ),
    Signature(
        Kind.TAESD_16,
        (Clue(r"0\.weight", _input(3)), Clue(r"14\.weight", (16, None, 3, 3))),
    ),
    Signature(
        Kind.TAESD_DECODER,
        (
            Clue(r"(?:taesd_decoder\.)?1\.weight", _input(4)),
            Clue(r"(?:taesd_decoder\.)?3\.conv\.0\.weight"),
        ),
    ),
    Signature(
        Kind.TAESD_16,
        (Clue(r"1\.weight", _input(16)), Clue(r"3\.conv\.0\.weight")),
    ),
    _one(Kind.VAE, r"(?:first_stage_model\.|vae\.)?decoder\.conv_in\.weight", _input(4)),
    _one(Kind.VAE_16, r"(?:first_stage_model\.|vae\.)?decoder\.conv_in\.weight", _input(16)),
)
_DEPTHS = (
    _one(Kind.MIDAS_HYBRID, rf"{_DPT}patch_embed\.backbone\.stem\.conv\.weight"),
    _one(
        Kind.MIDAS_OTHER, rf"{_DPT}blocks\.0\.attn\.relative_position_bias_table", name="MiDaS BEiT"
    ),
    _one(
        Kind.MIDAS_OTHER, rf"{_DPT}patch_embed\.proj\.weight", (1024, 3, 16, 16), "MiDaS DPT-large"
    ),
    Signature(Kind.MIDAS_OTHER, (Clue(r"pretrained\..*"), Clue(r"scratch\.refinenet1\..*"))),
    _one(Kind.DPT_HYBRID, r"dpt\.embeddings\.backbone\.bit\..*"),
    _one(Kind.DPT_OTHER, r"dpt\.embeddings\.cls_token"),
    Signature(
        Kind.DEPTH_ANYTHING, (Clue(r"backbone\.embeddings\.cls_token"), Clue(r"neck\.fusion_.*"))
    ),
    Signature(
        Kind.DEPTH_ANYTHING_ORIGINAL,
        (Clue(r"pretrained\.cls_token"), Clue(r"depth_head\.scratch\..*")),
    ),
)
_TEXTS = (
    Signature(
        Kind.OTHER,
        (Clue(r"vision_model\.embeddings\..*"), Clue(_TOKENS)),
        "whole CLIP (text and pictures)",
    ),
    _one(
        Kind.OTHER, r"(?:vision_model\.)?embeddings\.class_embedding", name="CLIP picture encoder"
    ),
    _one(Kind.TEXT_OTHER, _TOKENS, (None, 1024), "text encoder of Stable Diffusion 2 (OpenCLIP H)"),
    _one(Kind.TEXT_OTHER, _TOKENS, (None, 1280), "text encoder of SDXL (OpenCLIP bigG)"),
    _one(Kind.CLIP_TEXT, _TOKENS),
    _one(Kind.TEXT_OTHER, r"encoder\.block\.0\.layer\.0\.SelfAttention\.k\.weight", name="T5"),
    Signature(
        Kind.TEXT_OTHER,
        (
            Clue(r"(?:model\.)?token_embedding\.weight"),
            Clue(r"(?:model\.)?transformer\.resblocks\..*"),
        ),
        "OpenCLIP model",
    ),
)
_PARAM = r"emb_params|string_to_param\..*"
_EMBEDDINGS = (
    Signature(Kind.EMBEDDING_SDXL, (Clue(r"clip_l", LINEAR), Clue(r"clip_g", LINEAR))),
    _one(Kind.EMBEDDING_SD2, _PARAM, (None, 1024)),
    _one(Kind.EMBEDDING_SDXL, _PARAM, (None, 1280)),
    _one(Kind.EMBEDDING, _PARAM, LINEAR),
    *(
        Signature(kind, (Clue(_SINGLE_VECTOR, shape),), most=1)
        for kind, width in (
            (Kind.EMBEDDING, 768),
            (Kind.EMBEDDING_SD2, 1024),
            (Kind.EMBEDDING_SDXL, 1280),
        )
        for shape in ((width,), (None, width))
    ),
)

# The first that fits counts: what is a part of something else, or adds to it, comes before it.
SIGNATURES: tuple[Signature, ...] = (
    _one(Kind.BUNDLED, r"unet\.spatial\..*"),
    *_ADAPTERS,
    *_loras(),
    *_MOTIONS,
    *_TRANSFORMERS,
    *_unets(),
    *_AUTOENCODERS,
    *_DEPTHS,
    *_TEXTS,
    *_EMBEDDINGS,
)

_DOWN = r".*(?:lora_down\.weight|lora\.down\.weight|lora_A.*|lora_linear_layer\.down\.weight)"
DETAILS: tuple[Detail, ...] = (
    Detail(CHECKPOINT["text"], "text width {sizes}", 1),
    Detail(ORIGINAL["text"], "text width {sizes}", 1),
    Detail(DIFFUSERS["text"], "text width {sizes}", 1),
    Detail(
        r"first_stage_model\..*",
        "holds a VAE",
        otherwise="holds no VAE: one is needed beside it",
        kind=Kind.SD15,
    ),
    Detail(
        r"cond_stage_model\.transformer\..*",
        "holds the text encoder",
        otherwise="holds no text encoder: one is needed beside it",
        kind=Kind.SD15,
    ),
    Detail(
        rf"(?!flow_conv_in|{_MOTION}).*",
        "{count} keys of the base's network, which replace the base's",
        kind=Kind.LIVE2DIFF_MOTION,
    ),
    Detail(r"cond_stage_model\.model\..*", "holds the text encoder (OpenCLIP)"),
    Detail(r"conditioner\.embedders\..*", "holds the text encoders"),
    Detail(r"model_ema\..*", "holds averaged (EMA) weights, too"),
    Detail(r".*time_embedding\.cond_proj\.weight", "distilled with guidance as an input (LCM)"),
    Detail(r"(?:pretrained|backbone\.embeddings|dpt\.embeddings)\.cls_token", "width {sizes}", 2),
    Detail(r".*scaled_fp8", "scaled 8-bit weights"),
    Detail(_TABLE, "positions {sizes}", 1),
    Detail(rf"flow_conv_in\..*|{_MOTION}.*", "motion keys: {count}"),
    Detail(r"bundle_emb\..*", "holds textual inversions"),
    Detail(r"lora_(?:unet|te\d?)_.*", "kohya's names"),
    Detail(r"base_model\.model\..*|.*\.lora_A\..*", "peft's names"),
    Detail(r".*[._]lora\.down\.weight", "names of early diffusers"),
    Detail(_DOWN, "rank {sizes}"),
    Detail(r"lora_te\d?_.*|text_encoder.*lora.*", "changes the text encoder"),
    Detail(r"lora:.*", "layers: {count}"),
    *(Detail(key, form) for form, key in LYCORIS.items()),
    Detail(rf"{_PARAM}|clip_l", "{sizes} vectors"),
)
