"""Between pixels and latents."""

import math
from typing import Protocol

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import conv2d


class Autoencoder(Protocol):
    """Pixels to latents and back; latents come scaled as the UNet wants them.

    factor: pixels of a latent's side. channels: of a latent. alive: values that are in memory at
    once for each pixel of a picture, while it is encoded or decoded (`benchmarks/activations.py`
    measures them).
    """

    factor: int
    channels: int
    alive: int

    def encode(self, rgb: Tensor) -> Tensor:
        """rgb: (n, 3, h, w) in [0, 1] -> (n, channels, h / factor, w / factor)."""

    def decode(self, latent: Tensor) -> Tensor:
        """The inverse of `encode`; pixels are not clamped."""


OPPONENT = (  # orthonormal: luminance, red against blue, green against magenta
    (1 / math.sqrt(3), 1 / math.sqrt(3), 1 / math.sqrt(3)),
    (1 / math.sqrt(2), 0.0, -1 / math.sqrt(2)),
    (1 / math.sqrt(6), -2 / math.sqrt(6), 1 / math.sqrt(6)),
)


def _cosine_basis(size: int) -> Tensor:
    """Orthonormal DCT-II, (frequency, sample)."""
    k, n = torch.arange(size)[:, None].double(), torch.arange(size)[None].double()
    basis = torch.cos(math.pi * (2 * n + 1) * k / (2 * size)) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis


def block_transform(factor: int, luma_order: int, chroma_order: int) -> Tensor:
    """Rows of an orthonormal transform of RGB blocks, (channels, 3, factor, factor).

    Kept are the products of cosines whose frequencies sum to less than the order, low frequencies
    first.
    """
    cosine, colour = _cosine_basis(factor), torch.tensor(OPPONENT).double()
    pairs = sorted(
        ((i, j) for i in range(factor) for j in range(factor)), key=lambda pair: (sum(pair), pair)
    )
    rows = [
        colour[axis][:, None, None] * torch.outer(cosine[i], cosine[j])
        for axis, order in enumerate((luma_order, chroma_order, chroma_order))
        for i, j in pairs
        if i + j < order
    ]
    return torch.stack(rows).float()


class BlockCosineAutoencoder(nn.Module):
    """A fixed orthonormal block cosine transform in place of a learned autoencoder.

    High frequencies are dropped (they decode to zero), the others are divided by `scale`, their
    spread over the training pictures, so that noise reaches every channel alike. Nothing here is
    learned.
    """

    alive: int = 10
    transform: Tensor
    scale: Tensor

    def __init__(self, factor: int = 8, luma_order: int = 9, chroma_order: int = 4) -> None:
        super().__init__()
        self.factor = factor
        transform = block_transform(factor, luma_order, chroma_order)
        self.channels = len(transform)
        self.register_buffer("transform", transform, persistent=False)
        self.register_buffer("scale", torch.ones(self.channels))

    def encode(self, rgb: Tensor) -> Tensor:
        """rgb: (n, 3, h, w) in [0, 1] -> (n, channels, h / factor, w / factor)."""
        coefficients = conv2d(rgb * 2 - 1, self.transform, stride=self.factor)
        return coefficients / self.scale[:, None, None]

    def decode(self, latent: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, 3, h factor, w factor), not clamped.

        Blocks by a matrix product: a third of a transposed convolution's time on a CPU.
        """
        blocks = (latent.movedim(1, -1) * self.scale) @ self.transform.flatten(1)
        sides = {"c": 3, "a": self.factor, "b": self.factor}
        return rearrange(blocks / 2 + 0.5, "n h w (c a b) -> n c (h a) (w b)", **sides)


class KLAutoencoder(nn.Module):
    """Stable Diffusion's autoencoder; the network itself takes and gives pixels in [-1, 1].

    A latent is the mean of the encoder's distribution, never a sample of it, so that a picture has
    one latent; it is scaled to a spread of about 1 (0.18215 in Stable Diffusion 1.5).
    """

    alive: int = 768

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.channels: int = vae.config.latent_channels
        self.scale: float = vae.config.scaling_factor

    def encode(self, rgb: Tensor) -> Tensor:
        """rgb: (n, 3, h, w) in [0, 1] -> (n, channels, h / factor, w / factor)."""
        return self.vae.encode(rgb * 2 - 1).latent_dist.mode() * self.scale

    def decode(self, latent: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, 3, h factor, w factor), not clamped."""
        return self.vae.decode(latent / self.scale).sample / 2 + 0.5


class TinyAutoencoder(nn.Module):
    """TAESD, a small network that was trained to do what Stable Diffusion's autoencoder does.

    It was trained on pixels in [0, 1] and on latents as the UNet wants them; diffusers' module
    around it takes and gives pixels in [-1, 1].
    """

    alive: int = 198

    def __init__(self, vae: AutoencoderTiny) -> None:
        super().__init__()
        self.vae = vae
        self.factor = 2 ** (len(vae.config.encoder_block_out_channels) - 1)
        self.channels: int = vae.config.latent_channels

    def encode(self, rgb: Tensor) -> Tensor:
        """rgb: (n, 3, h, w) in [0, 1] -> (n, channels, h / factor, w / factor)."""
        return self.vae.encode(rgb * 2 - 1).latents

    def decode(self, latent: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, 3, h factor, w factor), not clamped."""
        return self.vae.decode(latent).sample / 2 + 0.5
