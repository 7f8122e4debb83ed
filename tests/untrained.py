"""Networks of Stable Diffusion's kind that are small, as `random_model` takes them."""

from diffusers import AutoencoderTiny, UNet2DConditionModel
from transformers import DPTForDepthEstimation

from live2diff_core.models.autoencoder import TinyAutoencoder
from live2diff_core.models.depth import DepthNetwork
from live2diff_core.models.unet import MotionConfig, StreamingUNet
from live2diff_core.weights.random import Networks
from tests.networks import tiny_dpt_config

TEXT = 16
WIDTH, HEIGHT = 32, 16


def tiny_networks() -> Networks:
    """A UNet of two levels, TAESD with two, DPT-hybrid of few layers; all weights are anew."""
    unet = UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=TEXT,
    )
    autoencoder = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    depth = DepthNetwork(DPTForDepthEstimation(tiny_dpt_config()))
    return Networks(StreamingUNet(unet, MotionConfig()), TinyAutoencoder(autoencoder), depth)
