"""Peak memory of a short and a long translation, side by side: it must not grow with length.

python benchmarks/memory.py [--frames 200 2000] [--size 192x160] [--clip FILE] [--json]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from itertools import count
from pathlib import Path

from live2diff_core.frames import Frame
from live2diff_core.live.sink import VideoFileSink
from live2diff_core.live.source import VideoFile

ALLOWED_GROWTH = 0.05
COMMAND = "import sys; from live2diff_core.cli import main; sys.exit(main())"


def long_clip(clip: Path, path: Path, frames: int) -> Path:
    """A clip played over and over until it has so many frames."""
    with VideoFile(clip) as first:
        info = first.info
    size = info.width // 2 * 2, info.height // 2 * 2
    index = count()
    with VideoFileSink(path, size, info.rate) as sink:
        while True:
            with VideoFile(clip) as source:
                for frame in source:
                    if (i := next(index)) == frames:
                        return path
                    rgb = frame.rgb[:, : size[1], : size[0]]
                    sink.write(Frame(rgb, i, i / float(info.rate)))


def peak_bytes(clip: Path, output: Path, size: str) -> int:
    """Largest resident memory of one `live2diff translate`."""
    arguments = ["translate", clip, output, "--prompt", "ink", "--size", size]
    process = subprocess.Popen([sys.executable, "-c", COMMAND, *map(str, arguments)])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the run failed with exit status {process.returncode}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> int:
    """Print both peaks and their ratio; 1 if the long run needs over 5 % more."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, nargs=2, default=(200, 2000))
    parser.add_argument("--size", default="192x160")
    parser.add_argument("--clip", type=Path, required=True, help="a video, repeated as needed")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for frames in options.frames:
            clip = long_clip(options.clip, Path(folder) / f"{frames}.mp4", frames)
            peaks.append(peak_bytes(clip, Path(folder) / "out.mp4", options.size))
            print(f"{frames} frames: {peaks[-1] / 1e6:.1f} MB", file=sys.stderr)
    growth = peaks[1] / peaks[0] - 1
    if options.json:
        print(json.dumps({"frames": options.frames, "peak_bytes": peaks, "growth": growth}))
    else:
        print(f"growth {100 * growth:+.1f} % (allowed: {100 * ALLOWED_GROWTH:.0f} %)")
    return int(growth > ALLOWED_GROWTH)


if __name__ == "__main__":
    sys.exit(main())
