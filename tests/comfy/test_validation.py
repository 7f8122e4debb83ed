"""What ComfyUI answers to a workflow with a mistake, before anything runs."""

import pytest

from examples.comfyui_client import Client, PromptFailed, PromptRefused, Workflow
from tests.comfy.graphs import bundled, node, translation, warmed_up
from tests.comfy.pictures import Clip
from tests.comfy.server import ComfyServer

pytestmark = pytest.mark.anyio


async def refusal(client: Client, workflow: Workflow) -> str:
    with pytest.raises(PromptRefused) as caught:
        await client.queue(workflow)
    return str(caught.value)


@pytest.mark.parametrize("side", ["width", "height"])
async def test_a_size_that_no_model_takes(client: Client, clip: Clip, side: str) -> None:
    with pytest.raises(PromptFailed) as caught:
        await client.run(translation(clip.name, **{side: 500}))
    said = str(caught.value)
    assert f"{side} must be a multiple of 64" in said
    assert "got 500; the nearest is 512" in said


@pytest.mark.parametrize("t_index", ["high", "30,", "30,20", "7,99"])
async def test_t_index_that_is_none(client: Client, clip: Clip, t_index: str) -> None:
    warmup = warmed_up(clip.name, t_index=t_index)
    said = await refusal(client, {**warmup, "show": node("PreviewImage", images=["warmup", 1])})
    assert said.count("Live2DiffWarmup (warmup): ") == 1
    assert "t_index" in said


@pytest.mark.parametrize("timeline", ["ink", "0: ink; 0s: neon", "4: ink; 4: neon", ""])
async def test_a_timeline_that_cannot_be_read(client: Client, clip: Clip, timeline: str) -> None:
    workflow = translation(clip.name)
    workflow["prompt"] = node("Live2DiffPromptTravel", clip=["model", 1], timeline=timeline)
    said = await refusal(client, workflow)
    assert "Live2DiffPromptTravel (prompt): " in said
    assert "timeline" in said


async def test_a_motion_file_that_is_missing(
    client: Client, clip: Clip, server: ComfyServer
) -> None:
    workflow = translation(clip.name)
    workflow["checkpoint"] = node("EmptyImage", width=64, height=64, batch_size=1, color=0)
    workflow["model"] = node(
        "Live2DiffApply",
        model=["checkpoint", 0],
        vae=["checkpoint", 0],
        motion_weights="live2diff.ckpt",
        depth_model="structure",
        depth_range="running",
    )
    said = await refusal(client, workflow)
    assert "there is no motion file live2diff.ckpt" in said
    assert str(server.base / "models" / "live2diff") in said


async def test_a_prompt_without_a_style_names_the_styles(client: Client, clip: Clip) -> None:
    with pytest.raises(PromptFailed, match=r"ink.*nightvision"):
        await client.run(translation(clip.name, prompt="a castle"))


async def test_too_few_frames_for_the_warm_up(client: Client, clip: Clip) -> None:
    workflow = warmed_up(clip.name)
    workflow["few"] = node("ImageFromBatch", image=["parts", 0], batch_index=0, length=7)
    workflow["warmup"]["inputs"]["frames"] = ["few", 0]
    workflow["show"] = node("PreviewImage", images=["warmup", 1])
    with pytest.raises(PromptFailed, match="8 frames or more, got 7"):
        await client.run(workflow)


async def test_what_is_right_is_queued(client: Client) -> None:
    plan = node("Live2DiffPlan", model=["model", 0], width=512, height=512, steps=2)
    outputs = await client.run({**bundled(), "plan": plan})
    (report,) = outputs["plan"]["text"]
    assert "512" in report


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"runtime": "graph"}, "runtime graph replays CUDA graphs and the model is on cpu"),
        ({"attention": "triton"}, "attention triton: it needs a GPU"),
    ],
)
async def test_a_way_of_computing_that_is_not_here(
    client: Client, clip: Clip, choice: dict[str, str], words: str
) -> None:
    with pytest.raises(PromptFailed, match=words):
        await client.run(sped(translation(clip.name), **choice))


async def test_a_way_of_computing_that_is_here(client: Client, clip: Clip) -> None:
    outputs = await client.run(sped(translation(clip.name), cache="float8", depth_every=3))
    assert outputs["save"]


def sped(workflow: Workflow, **changes: object) -> Workflow:
    choices = {"runtime": "eager", "attention": "auto", "cache": "network", "depth_every": 1}
    workflow["video"]["inputs"]["model"] = ["speed", 0]
    return {**workflow, "speed": node("Live2DiffSpeed", model=["model", 0], **choices | changes)}
