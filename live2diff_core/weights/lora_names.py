"""Names in LoRA files, and the layers that they mean."""

import re
from collections.abc import Collection, Iterable
from typing import Literal

Part = Literal["unet", "text"]

# Resnet layers and outer layers in the names of the original Stable Diffusion code.
LDM_RESNET = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
LDM_OUTER = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_out": "out.2",
}

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
PREFIXES: dict[Part, tuple[str, ...]] = {
    "unet": ("lora_unet_", "unet_", ""),
    "text": ("lora_te_", "lora_te1_", "text_encoder_", ""),
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


def ldm_names(unet: Collection[str]) -> dict[str, str]:
    """Layer names of a diffusers UNet to those of the original Stable Diffusion code.

    The original counts all resnets, each with its attention, and the downsamplers between them in
    one list; an upsampler stands third beside them, or second where there is no attention.
    """
    first_block = (re.match(r"down_blocks\.0\.resnets\.(\d+)\.", name) for name in unet)
    stride = 2 + max((int(found[1]) for found in first_block if found), default=0)
    attended = {found[1] for n in unet if (found := re.match(r"up_blocks\.(\d+)\.attentions", n))}
    names = {name: original for name, original in LDM_OUTER.items() if name in unet}
    for name in unet:
        found = re.fullmatch(r"(down|mid|up)_block(?:s\.(\d+))?\.(\w+)\.(\d+)\.(.+)", name)
        if found is None:
            continue
        side, block, kind, index, layer = found.groups()
        start, beside = int(block or 0) * stride + int(index), int(kind == "attentions")
        layer = LDM_RESNET.get(layer, layer)
        if kind == "downsamplers":
            names[name] = f"input_blocks.{start + stride}.0.op"
        elif kind == "upsamplers":
            names[name] = f"output_blocks.{start + stride - 1}.{1 + (block in attended)}.conv"
        elif side == "mid":
            names[name] = f"middle_block.{2 * int(index) + beside}.{layer}"
        elif side == "down":
            names[name] = f"input_blocks.{start + 1}.{beside}.{layer}"
        else:
            names[name] = f"output_blocks.{start}.{beside}.{layer}"
    return names
