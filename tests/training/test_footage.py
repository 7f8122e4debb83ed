"""Clips from a folder: which, which part of them, and what happens with broken ones."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from live2diff_core.errors import ConfigError, SourceError
from live2diff_core.frames import Frame
from live2diff_core.training.config import DataPart
from live2diff_core.training.footage import (
    Batch,
    FolderClips,
    Footage,
    Length,
    NumberedClips,
    ProceduralClips,
)

RATE = Fraction(10)
DATA = DataPart("", 16, 8, 17, prompt="a film")


@dataclass
class Shelf:
    """Videos that exist by name and length alone; frame k of any has the value k in its pixels."""

    lengths: dict[str, int | None]
    broken: set[str] = field(default_factory=set)
    opened: list[tuple[str, float]] = field(default_factory=list)

    def length(self, path: Path) -> Length | None:
        if path.stem in self.broken and self.lengths[path.stem] is None:
            raise SourceError(f"{path} is no video")
        frames = self.lengths[path.stem]
        return None if frames is None else Length(frames, RATE)

    @contextmanager
    def open(self, path: Path, start: float) -> Iterator[Iterator[Frame]]:
        self.opened.append((path.stem, start))
        if path.stem in self.broken:
            raise SourceError(f"{path} broke")
        first, count = round(start * RATE), self.lengths[path.stem] or 0
        yield (
            Frame(torch.full((3, 8, 16), index, dtype=torch.uint8), index, index / 10)
            for index in range(first, count)
        )


def folder(tmp_path: Path, *names: str) -> DataPart:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return replace(DATA, source=str(tmp_path))


def numbers(footage: Footage) -> list[int]:
    """Numbers of the frames of a clip of `Shelf`."""
    return [round(float(picture.mean()) * 255) for picture in footage.pictures]


def test_a_clip_is_any_run_of_frames_that_fits(tmp_path):
    clips = FolderClips(folder(tmp_path, "a.mp4"), Shelf({"a": 20}))
    drawn = [numbers(clips.draw(seed)) for seed in range(60)]
    assert all(one == list(range(one[0], one[0] + 17)) for one in drawn)
    assert {one[0] for one in drawn} == {0, 1, 2, 3}


def test_a_stride_skips_frames_and_needs_longer_videos(tmp_path):
    data = replace(folder(tmp_path, "a.mp4", "b.mp4"), stride=3)
    clips = FolderClips(data, Shelf({"a": 49, "b": 48}))
    assert [video.path.stem for video in clips.videos] == ["a"]
    assert numbers(clips.draw(0)) == list(range(0, 49, 3))


def test_the_same_seed_draws_the_same_clip_and_all_videos_come(tmp_path):
    shelf = Shelf({"a": 30, "b": 90, "c": 60})
    clips = FolderClips(folder(tmp_path, "a.mp4", "deep/b.MKV", "c.webm"), shelf)
    first, again = clips.draw(5), clips.draw(5)
    assert torch.equal(first.pictures, again.pictures)
    for seed in range(40):
        clips.draw(seed)
    assert {name for name, _ in shelf.opened} == {"a", "b", "c"}


def test_the_text_beside_a_video_is_its_caption_and_others_get_the_prompt(tmp_path):
    data = folder(tmp_path, "a.mp4", "b.mp4", "notes.txt")
    (tmp_path / "b.txt").write_text(" a dog runs \n", encoding="utf-8")
    clips = FolderClips(data, Shelf({"a": 30, "b": 30}))
    assert {v.path.stem: v.prompt for v in clips.videos} == {"a": "a film", "b": "a dog runs"}
    prompts = {clips.draw(seed).prompt for seed in range(20)}
    assert prompts == {"a film", "a dog runs"}


def test_a_video_without_any_caption_is_named(tmp_path):
    data = replace(folder(tmp_path, "a.mp4"), prompt=None)
    with pytest.raises(ConfigError, match=r"a\.mp4 has no caption: write a\.txt beside it"):
        FolderClips(data, Shelf({"a": 30}))


def test_videos_that_cannot_serve_are_left_out_and_named(tmp_path, caplog):
    shelf = Shelf({"short": 16, "mute": None, "bad": None, "good": 17}, broken={"bad"})
    names = [f"{name}.mp4" for name in shelf.lengths]
    with caplog.at_level(logging.WARNING):
        clips = FolderClips(folder(tmp_path, *names), shelf)
    assert [video.path.stem for video in clips.videos] == ["good"]
    for reason in ("short.mp4 is left out: 16 frames, 17 needed", "an unknown number", "bad.mp4"):
        assert reason in caplog.text


@pytest.mark.parametrize("names", [(), ("a.mp4",)])
def test_a_folder_without_usable_videos_is_refused(tmp_path, names):
    with pytest.raises(ConfigError, match="holds no video of at least 17 frames"):
        FolderClips(folder(tmp_path, *names), Shelf({"a": 3}))


def test_a_folder_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="there is no folder nowhere"):
        FolderClips(replace(DATA, source="nowhere"), Shelf({}))


def test_in_place_of_a_video_that_breaks_another_one_is_drawn(tmp_path, caplog):
    shelf = Shelf({"a": 30, "b": 30}, broken={"b"})
    clips = FolderClips(folder(tmp_path, "a.mp4", "b.mp4"), shelf)
    with caplog.at_level(logging.WARNING):
        assert all(len(numbers(clips.draw(seed))) == 17 for seed in range(10))
    assert "b.mp4 broke" in caplog.text
    assert torch.equal(clips.draw(3).pictures, clips.draw(3).pictures)


def test_where_every_video_breaks_training_ends(tmp_path):
    clips = FolderClips(folder(tmp_path, "a.mp4"), Shelf({"a": 30}, broken={"a"}))
    with pytest.raises(SourceError, match=r"a\.mp4 broke"):
        clips.draw(0)


def test_a_video_that_ends_early_is_one_that_breaks(tmp_path):
    shelf = Shelf({"a": 30})
    clips = FolderClips(folder(tmp_path, "a.mp4"), shelf)
    shelf.lengths["a"] = 9
    with pytest.raises(SourceError, match="expected 17 frames from number"):
        clips.draw(0)


def test_procedural_clips_are_of_the_settings_size_and_follow_their_seed():
    clips = ProceduralClips(replace(DATA, source="procedural", width=40, height=24))
    first = clips.draw(1)
    assert first.pictures.shape == (17, 3, 24, 40)
    assert (first.pictures.dtype, first.prompt) == (torch.float32, "a film")
    assert first.pictures.min() >= 0 and first.pictures.max() <= 1
    assert torch.equal(first.pictures, clips.draw(1).pictures)
    assert not torch.equal(first.pictures, clips.draw(2).pictures)


class Seeds:
    """Clips that tell the seed that they were drawn with."""

    def draw(self, seed: int) -> Footage:
        return Footage(torch.zeros(1, 3, 1, 1), str(seed))


def test_every_clip_of_a_run_has_seeds_of_its_own():
    drawn = [NumberedClips(Seeds(), seed)[number] for seed in (0, 1) for number in range(50)]
    pictures = [int(footage.prompt) for footage, _ in drawn]
    noises = [seed for _, seed in drawn]
    assert len({*pictures, *noises}) == 4 * 50
    assert all(0 <= seed < 2**63 for seed in (*pictures, *noises))
    footage, noise = NumberedClips(Seeds(), 1)[7]
    assert (footage.prompt, noise) == (drawn[57][0].prompt, drawn[57][1])


def test_a_batch_keeps_clips_captions_and_seeds_together():
    drawn = [(Footage(torch.full((2, 3, 1, 1), i), f"clip {i}"), 10 + i) for i in (1, 2)]
    batch = Batch.of(drawn)
    assert batch.pictures.shape == (2, 2, 3, 1, 1)
    assert batch.pictures[:, 0, 0, 0, 0].tolist() == [1, 2]
    assert (batch.prompts, batch.seeds) == (("clip 1", "clip 2"), (11, 12))
