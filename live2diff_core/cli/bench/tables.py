"""The figures as tables."""

from typing import Any

from rich.console import Console
from rich.table import Table

from ...weights.budget import in_gb

STAGES = {
    "read": "decode the file",
    "encode": "encode the latent",
    "depth": "depth input",
    "spatial": "UNet, spatial",
    "temporal": "UNet, temporal",
    "network": "network, all steps",
    "decode": "decode the latent",
    "write": "encode the file",
}
FLOORS = {"network": "network", "attention": "temporal attention"}
FIGURES = {
    "flops": ("GFLOP", 1e-9),
    "bytes": ("MB to read or write", 1e-6),
    "compute_ms": ("ms of computing", 1.0),
    "memory_ms": ("ms of reading and writing", 1.0),
    "ms": ("floor ms, the larger one", 1.0),
    "taken_ms": ("taken ms", 1.0),
    "ratio": ("taken / floor", 1.0),
}
NOTE = """\
UNet, spatial and temporal: the network's time, shared out as in an eager pass with hooks, which
the temporal attention's time is from, too."""


def show_environment(found: dict[str, Any]) -> None:
    """One line."""
    print(
        f"live2diff {found['live2diff']}, torch {found['torch']}, {found['device']}, "
        f"{found['threads']} threads"
    )


def title(run: dict[str, Any]) -> str:
    """What was run."""
    return (
        f"{run['size']}, {run['steps']} steps, {run['dtype']} on {run['device']}, {run['runtime']}"
    )


def show_run(run: dict[str, Any], console: Console) -> None:
    """Stages, floors and the rest of one combination."""
    print(f"\n{title(run)}: {run['fps']:.1f} frames/s")
    console.print(_stages(run), _floors(run["floor"]))
    print(NOTE)
    floor, memory, compiling = run["floor"], run["memory"], run["compile_ms"]
    print(
        f"floor: {floor['matmul_tflops']:.3g} TFLOP/s in a matrix product, "
        f"{floor['copy_gb_s']:.3g} GB/s in a copy, measured here"
    )
    made = "" if compiling is None else f"compilation {_ms(compiling)}, "
    print(f"first frame {_ms(run['first_frame_ms'])}, {made}re-prime {_ms(run['reprime_ms'])}")
    print(
        f"memory ({memory['kind']}): {in_gb(memory['peak'])}, "
        f"with a re-prime {in_gb(memory['peak_with_reprime'])}; state {in_gb(memory['state'])}"
    )
    if "against" in run:
        console.print(_against(run["against"]))


def _stages(run: dict[str, Any]) -> Table:
    table = _table("stage", "p50 ms", "p95 ms")
    rows = {label: run["stages_ms"][name] for name, label in STAGES.items()}
    rows |= {"a frame, file to file": run["frame_ms"], "latency": run["latency_ms"]}
    for label, times in rows.items():
        table.add_row(label, f"{times['p50']:.1f}", f"{times['p95']:.1f}")
    return table


def _floors(floor: dict[str, Any]) -> Table:
    table = _table("", *FLOORS.values())
    for name, (label, unit) in FIGURES.items():
        table.add_row(label, *(f"{floor[part][name] * unit:.2f}" for part in FLOORS))
    return table


def _table(first: str, *rest: str) -> Table:
    """Names on the left, figures on the right."""
    table = Table(first)
    for name in rest:
        table.add_column(name, justify="right")
    return table


def _against(figures: dict[str, Any]) -> Table:
    difference = figures["largest_difference"]
    known = "not finite" if difference is None else f"{difference:.1e}"
    notes = [f"the reference takes {figures['ratio']:.2f} times as long"]
    notes += [f"largest difference {known}", *filter(None, [figures["note"]])]
    table = _table("step of the network", "p50 ms", "p95 ms", "peak memory")
    table.caption = "; ".join(notes)
    for side in ("reference", "ours"):
        row = figures[side]
        times = (f"{row[name]:.1f}" for name in ("p50_ms", "p95_ms"))
        table.add_row(side, *times, in_gb(row["peak_bytes"]))
    return table


def show_summary(runs: list[dict[str, Any]], console: Console) -> None:
    """One line for each combination that ran, and the others by name."""
    table = _table("size", "N", "dtype", "runtime", "frames/s", "frame ms", "x floor", "memory")
    refused = [run for run in runs if "refused" in run]
    for run in runs:
        if run not in refused:
            table.add_row(*_summary(run))
    print()
    console.print(table)
    for run in refused:
        print(f"not run: {title(run)}: {run['refused']}")


def _summary(run: dict[str, Any]) -> list[str]:
    return [
        run["size"],
        str(run["steps"]),
        run["dtype"],
        run["runtime"],
        f"{run['fps']:.2f}",
        f"{run['frame_ms']['p50']:.1f}",
        f"{run['floor']['network']['ratio']:.2f}",
        in_gb(run["memory"]["peak"]),
    ]


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms"
