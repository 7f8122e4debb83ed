"""The most memory that was in use at once since a moment."""

from pathlib import Path

import psutil
import torch

CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
PEAK_AS_WELL = "5"  # Documentation/filesystems/proc.rst: resets the peak of the resident memory
HIGH_WATER = "VmHWM:"


class PeakMemory:
    """Peak since it was made, in bytes.

    kind: "reserved" of an accelerator by torch, with what CUDA graphs hold on to; "resident peak"
    of this process on Linux; "resident", the most that it had when it was read, where a system
    keeps no peak that can be reset.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._highest = device, 0
        if device.type != "cpu":
            self.kind = "reserved"
            torch.accelerator.empty_cache()
            torch.accelerator.reset_peak_memory_stats(device)
        else:
            self.kind = "resident peak" if _forget_peak() else "resident"

    def read(self) -> int:
        """Bytes; never fewer than it said before.

        Linux shows the exact present use where that is above the peak that it keeps, and keeps a
        peak from counters that lag behind by some pages for each processor: what it shows can fall.
        """
        self._highest = max(self._highest, self._shown())
        return self._highest

    def _shown(self) -> int:
        if self.kind == "reserved":
            return int(torch.accelerator.max_memory_reserved(self._device))
        if self.kind == "resident":
            return int(psutil.Process().memory_info().rss)
        lines = STATUS.read_text(encoding="utf-8").splitlines()
        found = next(line for line in lines if line.startswith(HIGH_WATER))
        return 1024 * int(found.split()[1])


def _forget_peak() -> bool:
    """Whether the system took the order to forget its peak."""
    try:
        CLEAR.write_text(PEAK_AS_WELL, encoding="utf-8")
    except OSError:
        return False
    return HIGH_WATER in STATUS.read_text(encoding="utf-8")
