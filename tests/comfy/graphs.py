"""Workflows in ComfyUI's API format, small enough for a processor."""

from typing import Any

WIDTH, HEIGHT = 128, 64
WARMUP = 8  # frames

Workflow = dict[str, dict[str, Any]]


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def stream_settings(seed: int = 0, **changes: Any) -> dict[str, Any]:
    settings = {
        "width": WIDTH,
        "height": HEIGHT,
        "steps": 2,
        "denoise": 0.6,
        "seed": seed,
        "noise": "fixed",
        "fit": "crop",
        "t_index": "",
    }
    return {**settings, **changes}


def bundled(prompt: str = "ink") -> Workflow:
    """Nodes model and prompt."""
    return {
        "model": node("Live2DiffBundledModel"),
        "prompt": node("CLIPTextEncode", clip=["model", 1], text=prompt),
    }


def translation(file: str, prompt: str = "ink", seed: int = 0, **changes: Any) -> Workflow:
    """A video file through Translate Video; node `save` reports the file."""
    return {
        **bundled(prompt),
        "source": node("LoadVideo", file=file),
        "video": node(
            "Live2DiffTranslateVideo",
            model=["model", 0],
            conditioning=["prompt", 0],
            video=["source", 0],
            **stream_settings(seed, **changes),
        ),
        "save": node(
            "SaveVideo",
            video=["video", 0],
            filename_prefix="translated",
            format="auto",
            codec="auto",
        ),
    }


def warmed_up(file: str, prompt: str = "ink", seed: int = 0, **changes: Any) -> Workflow:
    """A video file's first frames through Warm-up; `parts` has all its frames."""
    return {
        **bundled(prompt),
        "source": node("LoadVideo", file=file),
        "parts": node("GetVideoComponents", video=["source", 0]),
        "warmup": node(
            "Live2DiffWarmup",
            model=["model", 0],
            conditioning=["prompt", 0],
            frames=["parts", 0],
            **stream_settings(seed, **changes),
        ),
    }


def sampler(
    first: int, count: int = 1, name: str = "sampler", flush: bool = False, **inputs: Any
) -> Workflow:
    """Frames of `parts` through a sampler on `warmup`; `NAME_save` reports the pictures."""
    return {
        f"{name}_images": node(
            "ImageFromBatch", image=["parts", 0], batch_index=first, length=count
        ),
        name: node(
            "Live2DiffSampler",
            stream=["warmup", 0],
            images=[f"{name}_images", 0],
            flush=flush,
            **inputs,
        ),
        f"{name}_save": node("SaveImage", images=[name, 0], filename_prefix=name),
    }


def live(source: dict[str, Any], prompt: str = "ink", **changes: Any) -> Workflow:
    """A source node through Live, node `live`; changes: of its inputs."""
    return {
        "model": node("Live2DiffBundledModel"),
        "source": source,
        "live": node(
            "Live2DiffLive",
            model=["model", 0],
            clip=["model", 1],
            source=["source", 0],
            prompt=prompt,
            **stream_settings(**{"steps": 1, **changes}),
        ),
    }


def pattern(width: int = WIDTH, height: int = HEIGHT, rate: int = 60) -> dict[str, Any]:
    return node("Live2DiffTestPattern", width=width, height=height, rate=rate)


def program() -> dict[str, Any]:
    return node("Live2DiffSocketSource")


def recorded(workflow: Workflow, format: str = "mp4") -> Workflow:
    """A live workflow with a recording."""
    record = node("Live2DiffRecord", filename_prefix="live", format=format, quality=18)
    whole = {**workflow, "record": record}
    whole["live"]["inputs"]["record"] = ["record", 0]
    return whole


def nothing_of_ours() -> Workflow:
    """A prompt after which ComfyUI keeps none of our nodes' outputs."""
    return {
        "empty": node("EmptyImage", width=64, height=64, batch_size=1, color=0),
        "show": node("PreviewImage", images=["empty", 0]),
    }
