"""How the original Stable Diffusion code names the layers of the UNet: in single files, in LoRAs.

diffusers' own converter goes from these names to its own alone, leaves out what it does not know
without a word, and fails where a bias is missing; the tests compare with it.
"""

import re
from collections.abc import Collection, Iterable

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
OUTER = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def ldm_keys(keys: Iterable[str]) -> dict[str, str]:
    """Original key -> diffusers key, for the parameters of a diffusers UNet."""
    split = [key.rpartition(".") for key in keys]  # layer and weight or bias
    names = ldm_names({layer for layer, _, _ in split})
    return {f"{names[layer]}.{kind}": f"{layer}.{kind}" for layer, _, kind in split}


def ldm_names(unet: Collection[str]) -> dict[str, str]:
    """Layer names of a diffusers UNet to those of the original code, as far as they differ.

    The original counts all resnets, each with its attention, and the downsamplers between them in
    one list; an upsampler stands third beside them, or second where there is no attention.
    """
    first_block = (re.match(r"down_blocks\.0\.resnets\.(\d+)\.", name) for name in unet)
    stride = 2 + max((int(found[1]) for found in first_block if found), default=0)
    attended = {found[1] for n in unet if (found := re.match(r"up_blocks\.(\d+)\.attentions", n))}
    names = {name: original for name, original in OUTER.items() if name in unet}
    for name in unet:
        found = re.fullmatch(r"(down|mid|up)_block(?:s\.(\d+))?\.(\w+)\.(\d+)\.(.+)", name)
        if found is None:
            continue
        side, block, kind, index, layer = found.groups()
        start, beside = int(block or 0) * stride + int(index), int(kind == "attentions")
        layer = RESNET.get(layer, layer)
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
