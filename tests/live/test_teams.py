"""Threads beside the engine keep no threads of their own."""

import os
import subprocess
import sys

import pytest

# In a process of its own: tests run with one thread, and teams are counted by process.
PROGRAM = """
import psutil, torch
from live2diff_core.live.teams import release_team
def compute():
    torch.ones(1 << 20).exp_()
    return psutil.Process().num_threads()
before = psutil.Process().num_threads()
computing = compute()
release_team()
released = psutil.Process().num_threads()
print(computing - before, released - before, compute() - before)
"""
ALONE = """
import psutil, torch
from concurrent.futures import ThreadPoolExecutor
from live2diff_core.live.teams import compute_alone
def compute(alone):
    if alone:
        compute_alone()
    before = psutil.Process().num_threads()
    torch.ones(1 << 20).exp_()
    return psutil.Process().num_threads() - before
# Both threads live to the end: one that ends is counted for a while after it was joined.
with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
    print(one.submit(compute, True).result(), other.submit(compute, False).result())
"""

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="GNU's OpenMP alone")


def printed(program: str) -> list[str]:
    two = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=two)
    return ran.stdout.split()


@linux
def test_a_team_is_let_go_of_and_comes_back() -> None:
    assert printed(PROGRAM) == ["1", "0", "1"]


@linux
def test_a_thread_computes_alone_and_the_next_one_does_not() -> None:
    assert printed(ALONE) == ["0", "1"]
