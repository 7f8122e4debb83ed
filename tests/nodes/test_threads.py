"""A busy processor gets fewer threads, for the run alone."""

from collections import namedtuple
from types import SimpleNamespace

import psutil
import pytest
import torch

from tests.nodes.graph import model_and_prompt
from tests.pack import pack_module

threads = pack_module("nodes.threads")


@pytest.fixture
def usual():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield 4
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("others", "expected"), [(0, 4), (1.2, 4), (4, 4), (5, 3), (6.4, 2), (7.6, 1), (8.3, 1)]
)
def test_threads_are_those_of_free_cores(monkeypatch, usual, others, expected):
    monkeypatch.setattr(psutil, "cpu_count", lambda: 8)
    monkeypatch.setattr(threads.load(), "others", lambda: others)
    with threads.free_threads():
        assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == usual


def test_a_run_that_breaks_off_gives_them_back(monkeypatch, usual):
    monkeypatch.setattr(threads.load(), "others", lambda: 1000.0)
    with pytest.raises(KeyError), threads.free_threads():
        raise KeyError
    assert torch.get_num_threads() == usual


def test_a_run_of_a_model_on_the_processor_looks_at_the_load(monkeypatch, usual):
    monkeypatch.setattr(threads.load(), "others", lambda: 1000.0)
    model, _ = model_and_prompt()
    inputs = pack_module("nodes.inputs")
    widgets = {"width": 64, "height": 64, "steps": 2, "denoise": 0.6, "t_index": ""}
    rest = {"noise": "fixed", "seed": 0, "fit": "crop"}
    with model.running(inputs.stream_config({**widgets, **rest}, model.computing), 0):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == usual


Times = namedtuple("Times", ["user", "idle"])


def test_others_are_all_that_is_not_this_program(monkeypatch):
    clock, system, own = [0.0], [0.0], [0.0]
    monkeypatch.setattr(threads.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(psutil, "cpu_times", lambda: Times(system[0], 8 * clock[0] - system[0]))
    load = threads.Load()
    monkeypatch.setattr(
        load, "_process", SimpleNamespace(cpu_times=lambda: SimpleNamespace(user=own[0], system=0))
    )
    load._seen = load._now()
    clock[0], system[0], own[0] = 2.0, 9.0, 4.0
    assert load.others() == pytest.approx(2.5)
    clock[0], system[0] = 2.01, 99.0
    assert load.others() == pytest.approx(2.5)  # too soon for another look
    clock[0], system[0], own[0] = 4.0, 13.0, 8.0
    assert load.others() == 0
