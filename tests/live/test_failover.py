"""What is shown when a part fails, and when it is tried again."""

import logging

import pytest
import torch

from live2diff_core.errors import SourceError
from live2diff_core.live.failover import FADE_SECONDS, Backoff, StandIn, card, caught, describe

SIZE = (160, 96)
WORDS = ("No signal", "the camera is gone")


def plain(level: int) -> torch.Tensor:
    return torch.full((3, SIZE[1], SIZE[0]), level, dtype=torch.uint8)


def test_waits_double_up_to_the_longest_and_begin_again():
    backoff = Backoff(0.5, 10)
    assert [backoff.next() for _ in range(7)] == [0.5, 1, 2, 4, 8, 10, 10]
    backoff.reset()
    assert backoff.next() == 0.5


def test_what_is_caught_is_logged_and_kept_without_its_frames(caplog):
    errors: list[Exception] = []
    with caplog.at_level(logging.WARNING), caught(errors):
        raise MemoryError("no room")
    with caplog.at_level(logging.WARNING), caught(errors):
        raise SourceError("the camera is gone")
    assert [describe(error) for error in errors] == ["MemoryError: no room", "the camera is gone"]
    assert all(error.__traceback__ is None for error in errors)
    ours = [record for record in caplog.records if record.exc_info is None]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert [record.getMessage() for record in ours] == ["the camera is gone"]


def test_keys_and_exits_are_not_caught():
    with pytest.raises(KeyboardInterrupt), caught([]):
        raise KeyboardInterrupt


@pytest.mark.parametrize("size", [(512, 512), (160, 96), (64, 640), (24, 16)])
def test_a_card_has_its_size_and_shows_its_words(size):
    picture = card(size, *WORDS)
    assert picture.shape == (3, size[1], size[0])
    assert picture.dtype == torch.uint8
    assert picture.float().std() > 1
    assert not torch.equal(picture, card(size, "Please stand by", ""))


def test_a_card_keeps_its_words_off_the_edges():
    picture = card((320, 180), "W" * 60, "word " * 200).int()
    assert picture[:, :, [0, -1]].float().std(dim=(1, 2)).max() == 0
    assert picture[:, [0, -1]].float().std(dim=(1, 2)).max() == 0


def test_held_is_what_was_good_last():
    stand_in = StandIn()
    assert stand_in.held() is None
    stand_in.showed(plain(20))
    stand_in.showed(plain(30))
    stand_in.card(WORDS, SIZE, 0.0)
    held = stand_in.held()
    assert held is not None
    assert torch.equal(held, plain(30))


def test_a_card_fades_in_and_stays():
    stand_in = StandIn()
    stand_in.showed(plain(200))
    times = [5.0, 5.0 + FADE_SECONDS / 2, 5.0 + FADE_SECONDS, 60.0]
    shown = [stand_in.card(WORDS, SIZE, now) for now in times]
    whole = card(SIZE, *WORDS)
    assert torch.equal(shown[0], plain(200))
    half = (whole.float() + 200) / 2
    assert (shown[1].float() - half).abs().max() <= 1
    assert torch.equal(shown[2], whole)
    assert torch.equal(shown[3], whole)


def test_other_words_fade_from_what_is_shown():
    stand_in = StandIn()
    stand_in.card(WORDS, SIZE, 0.0)
    other = ("No translation", "out of memory")
    assert torch.equal(stand_in.card(other, SIZE, 9.0), card(SIZE, *WORDS))
    assert torch.equal(stand_in.card(other, SIZE, 10.0), card(SIZE, *other))


def test_a_second_failure_fades_anew_from_the_picture_between():
    stand_in = StandIn()
    stand_in.card(WORDS, SIZE, 0.0)
    stand_in.showed(plain(90))
    assert torch.equal(stand_in.card(WORDS, SIZE, 30.0), plain(90))


def test_at_once_there_is_no_fade():
    stand_in = StandIn()
    stand_in.showed(plain(200))
    assert torch.equal(stand_in.card(WORDS, SIZE, 0.0, at_once=True), card(SIZE, *WORDS))


def test_the_first_card_fades_in_from_black_in_its_own_size():
    stand_in = StandIn()
    stand_in.showed(plain(200)[:, ::2])
    assert stand_in.card(WORDS, SIZE, 0.0).max() == 0
