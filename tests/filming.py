"""A page that films in a headless Chromium: its camera, and the pictures on its canvas."""

import asyncio
import base64
import io
from collections.abc import Awaitable, Callable
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import torch
from PIL import Image
from playwright.async_api import Page

from live2diff_core.config import StreamConfig
from live2diff_core.live.pattern import TestPattern
from live2diff_core.stream.session import Session
from live2diff_core.weights.bundled import load_bundled

CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
LIMIT, PAUSE, REST = 300, 0.2, 2  # seconds
# The canvas after each picture, as PNG.
RECORD = """(selector) => {
    window.seen = [];
    const { prototype } = CanvasRenderingContext2D;
    const before = prototype.drawImage;
    prototype.drawImage = function (...given) {
        before.apply(this, given);
        if (this.canvas.closest?.(selector)) seen.push(this.canvas.toDataURL());
    };
}"""
SEEN = "() => window.seen.splice(0)"
# How many tracks of a camera run, of those that the page asked for since.
TRACKS = """() => {
    window.tracks = [];
    const { mediaDevices } = navigator;
    const before = mediaDevices.getUserMedia;
    mediaDevices.getUserMedia = async function (...given) {
        const media = await before.apply(this, given);
        tracks.push(...media.getTracks());
        return media;
    };
}"""
FILMING = "() => tracks.filter(({ readyState }) => readyState === 'live').length"


async def eventually(holds: Callable[[], Awaitable[Any]]) -> Any:
    """What it gives as soon as that is true. Raises TimeoutError."""
    async with asyncio.timeout(LIMIT):
        while not (found := await holds()):
            await asyncio.sleep(PAUSE)
        return found


def state_of(width: int, height: int) -> int:
    """MB that a stream of the bundled model holds: its cache, for the most part."""
    model = load_bundled()
    with Session(model, StreamConfig(width, height, model.defaults.steps), "") as session:
        return round(session.spec.state_bytes / 2**20)


async def resident_at_rest(process: psutil.Process) -> int:
    """MB of a process, the least of what is seen for some seconds.

    A cache that stays shows in it, smaller things do not: GNU's allocator keeps what is free at the
    end of a thread's heap, up to 64 MB, until something beside it is freed.

    The threads of a stream go on for a moment when it is listed no more, longer on a busy machine.
    What a stream leaves behind is there in every look.
    """
    seen = []
    for _ in range(round(REST / PAUSE)):
        seen.append(process.memory_info().rss)
        await asyncio.sleep(PAUSE)
    return round(min(seen) / 2**20)


async def pictures(page: Page, count: int) -> list[torch.Tensor]:
    """So many recorded pictures or more, as they are drawn: (3, h, w) uint8 each."""
    urls: list[str] = []

    async def are_enough() -> bool:
        urls.extend(await page.evaluate(SEEN))
        return len(urls) >= count

    await eventually(are_enough)
    return [decode(url) for url in urls]


def decode(url: str) -> torch.Tensor:
    png = base64.b64decode(url.partition(",")[2])
    rgb = np.array(Image.open(io.BytesIO(png)).convert("RGB"))
    return torch.from_numpy(rgb).permute(2, 0, 1)


def greenness(rgb: torch.Tensor) -> float:
    """How much more green a picture has than red and blue, of 255."""
    red, green, blue = rgb.float().mean((1, 2)).tolist()
    return green - max(red, blue)


def counting_camera(path: Path, width: int, height: int, fps: int, seconds: int) -> str:
    """Write what a camera is to see, frames with numbers in them; the switch that has it so."""
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F{fps}:1 Ip A1:1 C420jpeg\n".encode())
        for frame in islice(TestPattern(width, height, fps), fps * seconds):
            rgb = np.ascontiguousarray(frame.rgb.permute(1, 2, 0).numpy())
            file.write(b"FRAME\n" + cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420).tobytes())
    return f"--use-file-for-fake-video-capture={path}"
