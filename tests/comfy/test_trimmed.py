"""A VIDEO that ComfyUI's own node trimmed is streamed, as long as ComfyUI itself makes it."""

from pathlib import Path

import numpy as np
import pytest

from examples.comfyui_client import Client
from tests.comfy.graphs import node, translation
from tests.comfy.pictures import RATE, Clip, pictures
from tests.comfy.server import ComfyServer

pytestmark = pytest.mark.anyio

TRIM = "Video Slice"


@pytest.mark.parametrize(("start", "duration"), [(0.32, 0.0), (0.2, 1.0), (-0.8, 0.0)])
async def test_a_trimmed_video_is_translated_as_long_as_it_is(
    client: Client,
    server: ComfyServer,
    long_clip: Clip,
    tmp_path: Path,
    start: float,
    duration: float,
) -> None:
    if TRIM not in server.get_json("/object_info"):
        pytest.skip("this ComfyUI trims no videos")
    trimmed = node(
        TRIM, video=["source", 0], start_time=start, duration=duration, strict_duration=False
    )
    workflow = translation(long_clip.name) | {"trim": trimmed}
    workflow["video"]["inputs"]["video"] = ["trim", 0]
    workflow["parts"] = node("GetVideoComponents", video=["trim", 0])
    workflow["frames"] = node("SaveImage", images=["parts", 0], filename_prefix="trimmed")
    outputs = await client.run(workflow)
    core = await pictures(client, {"frames": outputs["frames"]}, tmp_path)
    made = await pictures(client, {"save": outputs["save"]}, tmp_path)
    whole = await client.run(translation(long_clip.name))
    every = await pictures(client, {"save": whole["save"]}, tmp_path)
    begin = start if start >= 0 else len(every) / RATE + start
    expected = len(every) - round(begin * RATE) if not duration else round(duration * RATE)
    assert len(core) == expected
    assert made.shape == (expected, *every.shape[1:])
    assert np.abs(made.astype(float) - core.astype(float)).mean() > 8  # translated
