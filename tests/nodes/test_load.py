"""A processor that others use is said to be busy, and nothing is changed by it."""

import logging
from collections import namedtuple
from types import SimpleNamespace

import psutil
import pytest
import torch

from tests.nodes.graph import images, sample, warm_up
from tests.pack import pack_module

load = pack_module("nodes.load")

Times = namedtuple("Times", ["user", "idle"])


@pytest.fixture(autouse=True)
def threads(monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    monkeypatch.setattr(load.load(), "said", -load.SAID_EVERY)
    monkeypatch.setattr(psutil, "cpu_count", lambda: 8)
    yield
    torch.set_num_threads(before)


def said(monkeypatch, caplog, others):
    monkeypatch.setattr(load.load(), "others", lambda: others)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        load.tell_of_load()
    assert torch.get_num_threads() == 4
    return caplog.text


@pytest.mark.parametrize("others", [0, 1.2, 4])
def test_nothing_is_said_where_cores_are_free(monkeypatch, caplog, others):
    assert said(monkeypatch, caplog, others) == ""


@pytest.mark.parametrize(("others", "free"), [(5, 3), (6.4, 2), (7.6, 1), (8.3, 1)])
def test_threads_that_will_wait_are_told_with_what_to_do(monkeypatch, caplog, others, free):
    text = said(monkeypatch, caplog, others)
    assert f"other programs use {others:.1f} of 8 cores, and 4 threads" in text
    assert f"OMP_NUM_THREADS={free} " in text


def test_it_is_said_once_a_minute(monkeypatch, caplog):
    assert said(monkeypatch, caplog, 8) != ""
    assert said(monkeypatch, caplog, 8) == ""


def test_one_thread_waits_for_none(monkeypatch, caplog):
    torch.set_num_threads(1)
    monkeypatch.setattr(load.load(), "others", lambda: 8)
    load.tell_of_load()
    assert caplog.text == ""


def test_a_run_looks_at_the_load(monkeypatch):
    looks = []
    monkeypatch.setattr(load.load(), "others", lambda: looks.append(1) or 0)
    stream, _ = warm_up()
    sample(stream, images(1, 8))
    assert len(looks) == 2


def test_others_are_all_that_is_not_this_program(monkeypatch):
    clock, system, own = [0.0], [0.0], [0.0]
    monkeypatch.setattr(load.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(psutil, "cpu_times", lambda: Times(system[0], 8 * clock[0] - system[0]))
    seen = load.Load()
    monkeypatch.setattr(
        seen, "_process", SimpleNamespace(cpu_times=lambda: SimpleNamespace(user=own[0], system=0))
    )
    seen._seen = seen._now()
    clock[0], system[0], own[0] = 2.0, 9.0, 4.0
    assert seen.others() == pytest.approx(2.5)
    clock[0], system[0] = 2.01, 99.0
    assert seen.others() == pytest.approx(2.5)  # too soon for another look
    clock[0], system[0], own[0] = 4.0, 13.0, 8.0
    assert seen.others() == 0
