"""All that docs/performance.md says of GPUs, measured anew in one command: make gpu

The tests that need one, parity of every runtime and precision, bench with the kernel and without,
growth at full size, latency of a live stream: each in a process of its own, with its output in a
file. What fails is named at the end, and the rest goes on.

    python benchmarks/gpu.py [--quick] [--only NAME ...] [--device cuda] [--output FOLDER]

--quick: 512x512 with two steps and 30 frames alone, and no growth. Compiling is most of the time:
some two minutes for each size and number of steps, once. Exit status 1 where anything failed.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from live2diff_core.config import RUNTIMES

ROOT = Path(__file__).resolve().parent.parent
LIVE2DIFF = (str(Path(sys.executable).with_name("live2diff")),)
PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
TESTS = ("models/test_ring_attention.py", "stream/test_cuda_graph.py", "stream/test_overlap.py")
# Largest error of the recorded streams that passes: twice what the page's table has, and what is
# usual for float32 without TF32.
TOLERANCES = {
    ("float32", "network"): 1e-4,
    ("float16", "network"): 0.06,
    ("bfloat16", "network"): 0.6,
    ("float16", "float8"): 0.5,
}
WITHOUT_TF32 = {"NVIDIA_TF32_OVERRIDE": "0"}


@dataclass(frozen=True)
class Job:
    """A command with a name, and what its environment has besides."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


def jobs(device: str, output: Path, quick: bool) -> Iterator[Job]:
    """What is run, the shortest first."""
    yield Job("tests", (*PYTEST, *(str(ROOT / "tests" / name) for name in TESTS)))
    for runtime, (dtype, cache) in product(RUNTIMES, TOLERANCES):
        yield parity(device, runtime, dtype, cache)
    yield bench(device, "bench", RUNTIMES, quick)
    yield bench(device, "bench-overlap", ("graph", "compile-graph"), quick, "--overlap")
    yield bench(device, "bench-without-kernel", RUNTIMES, quick, "--attention", "torch")
    for runtime in ("eager", "graph"):
        live = ("--load", "0.8", "--device", device, "--runtime", runtime)
        yield script(f"live-{runtime}", "soak.py", *live)
    if not quick:
        yield script("growth", "growth.py", "--full", "--device", device, "--output", str(output))


def parity(device: str, runtime: str, dtype: str, cache: str) -> Job:
    """The recorded streams, in one way."""
    tolerance = str(TOLERANCES[dtype, cache])
    how = ("--runtime", runtime, "--dtype", dtype, "--cache", cache, "--tolerance", tolerance)
    command = (*LIVE2DIFF, "parity", str(ROOT / "tests/data/golden"), "--device", device, *how)
    exact = WITHOUT_TF32 if dtype == "float32" else {}
    return Job(f"parity-{runtime}-{dtype}-{cache}", command, exact)


def bench(device: str, name: str, runtimes: Sequence[str], quick: bool, *more: str) -> Job:
    """Full size with random weights."""
    sizes, steps = (["512x512"], ["2"]) if quick else (["512x512", "768x512"], ["2", "4"])
    varied = {"--size": sizes, "--steps": steps, "--runtime": runtimes}
    chosen = [part for option, values in varied.items() for v in values for part in (option, v)]
    how = ("--dtype", "float16", "--device", device, "--frames", "30" if quick else "120")
    return Job(name, (*LIVE2DIFF, "bench", "--weights", "random", *chosen, *how, "--json", *more))


def script(name: str, file: str, *arguments: str) -> Job:
    """Another of the benchmarks."""
    return Job(name, (sys.executable, str(ROOT / "benchmarks" / file), *arguments))


def run(job: Job, output: Path) -> bool:
    """Run it, with standard output in NAME.txt and errors in NAME.log; whether it went well."""
    begun = time.monotonic()
    with (
        (output / f"{job.name}.txt").open("w", encoding="utf-8") as told,
        (output / f"{job.name}.log").open("w", encoding="utf-8") as log,
    ):
        environment = os.environ | job.environment
        done = subprocess.run(
            job.command, cwd=ROOT, env=environment, stdout=told, stderr=log, check=False
        )
    verdict = "ok" if done.returncode == 0 else f"FAILED ({done.returncode})"
    print(f"{job.name}: {verdict}, {time.monotonic() - begun:.0f} s", flush=True)
    return done.returncode == 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", action="append", metavar="NAME", help="repeatable")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "gpu")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    every = list(jobs(options.device, options.output, options.quick))
    unknown = set(options.only or ()) - {job.name for job in every}
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; it has {[j.name for j in every]}")
    chosen = [job for job in every if not options.only or job.name in options.only]
    failed = [job.name for job in chosen if not run(job, options.output)]
    print(f"{len(chosen) - len(failed)} of {len(chosen)} went well; all output: {options.output}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
