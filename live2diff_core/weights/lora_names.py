"""Names in LoRA files, and the layers that they mean."""

from collections.abc import Collection, Iterable
from typing import Literal

from .ldm import ldm_names

Part = Literal["unet", "text"]

# Endings with which diffusers named attention layers before LoRA had layers of its own.
PROCESSORS: dict[Part, tuple[tuple[str, str], ...]] = {
    "unet": (
        (".to_q", ".processor.to_q_lora"),
        (".to_k", ".processor.to_k_lora"),
        (".to_v", ".processor.to_v_lora"),
        (".to_out.0", ".processor.to_out_lora"),
    ),
    "text": (
        (".q_proj", ".to_q_lora"),
        (".k_proj", ".to_k_lora"),
        (".v_proj", ".to_v_lora"),
        (".out_proj", ".to_out_lora"),
    ),
}
# Of kohya's trainers, of diffusers, of ComfyUI's own nodes, and of none.
PREFIXES: dict[Part, tuple[str, ...]] = {
    "unet": ("lora_unet_", "unet_", "diffusion_model_", ""),
    "text": ("lora_te_", "lora_te1_", "text_encoder_", "text_encoders_clip_l_transformer_", ""),
}


def flat(name: str) -> str:
    """A layer's name as trainers write it that allow no dots in names."""
    return name.replace(".", "_")


def layer_table(unet: Collection[str], text: Collection[str]) -> dict[str, tuple[Part, str]]:
    """Every name by which a file may call a layer, flat, to its part and its own name there.

    unet, text: names of all layers that a LoRA may change, as their modules call them.
    """
    table: dict[str, tuple[Part, str]] = {}
    original = ldm_names(unet)
    for name in unet:
        table |= _aliases("unet", name, (name, original.get(name, name)))
    for name in text:
        bare = name.removeprefix("text_model.")  # which transformers 5 has no more
        table |= _aliases("text", name, (bare, f"text_model.{bare}"))
    return table


def _aliases(part: Part, layer: str, names: Iterable[str]) -> dict[str, tuple[Part, str]]:
    spelled = list(names)
    spelled += [
        name.removesuffix(ending) + processor
        for name in spelled
        for ending, processor in PROCESSORS[part]
        if name.endswith(ending)
    ]
    return {prefix + flat(name): (part, layer) for prefix in PREFIXES[part] for name in spelled}
