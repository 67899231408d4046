"""How long training steps take while a checkpoint is uploaded, against steps while none is.

    python -m bench.step_during_upload [runs [saves]]

The job of bench.save_cost, 1 GB of state to a sink of 100 MB/s, saves so seldom that half of its time no upload runs.
By the same clock, a step counts as one during an upload when it overlaps the time between the upload's first and last
body. Steps that copy the state into its buffers, and those of the first saves, which make these buffers, are
bench.save_cost's.
"""

import os
import statistics
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from bench.common import save, spread
from bench.save_cost import FRESH, on_sink, step_seconds, steps_in, trained
from bench.sink import Shape, shaped

SECONDS = 21.0
"""Of training between two saves, with a core to spare: twice the time of an upload."""
_COPYING = 2
"""Steps after a save in which its copies are made."""
_GAP = 0.5
"""Seconds without a body after which an upload is over."""
Span = tuple[float, float]


def uploads(bodies: Iterable[Span]) -> list[Span]:
    """Uploads, of the bodies that they consist of."""
    found = list[Span]()
    for begin, end in sorted(bodies):
        if found and begin - found[-1][1] < _GAP:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return found


def sorted_out(
    begins: list[float], ends: list[float], every: int, spans: list[Span]
) -> tuple[list[float], list[float]]:
    """Seconds of the steps during uploads, and of the others."""
    busy, idle = list[float](), list[float]()
    for index, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        if index >= FRESH * every and index % every > _COPYING:
            chosen = busy if any(start < end and begin < stop for start, stop in spans) else idle
            chosen.append(end - begin)
    return busy, idle


def run(saves: int, threads: int) -> dict[str, float]:
    """One run: how many steps there were of each kind, and their median and 99th percentile in seconds."""
    with tempfile.TemporaryDirectory() as temporary, shaped(Shape(total=100e6, aside=True)) as sink:
        os.environ.update(sink.environment)
        every = steps_in(SECONDS, threads, step_seconds(threads, Path(temporary)))
        document = trained("ours", saves, every, threads, Path(temporary), on_sink())
        kinds = sorted_out(document["begins"], document["ends"], every, uploads(sink.bodies()))
    row: dict[str, float] = {}
    for name, seconds in zip(("upload", "idle"), kinds, strict=True):
        quantiles = statistics.quantiles(seconds, n=100)
        row |= {f"{name}_steps": len(seconds), f"{name}_p50": quantiles[49], f"{name}_p99": quantiles[98]}
    return row


def main(runs: int = 3, saves: int = 7) -> None:
    """Print the table and save the numbers."""
    found: dict[str, list[dict[str, float]]] = {}
    for cores, threads in (("a core to spare", 1), ("all cores busy", 2)):
        rows = found.setdefault(cores, [])
        for _ in range(runs):
            rows.append(run(saves, threads))
            save("step_during_upload", found)
        print(f"  {cores}: {rows}", file=sys.stderr, flush=True)
    print(f"Steps during an upload of 1 GB at 100 MB/s against idle: seconds and ratio, median (range) of {runs} runs")
    for cores, rows in found.items():
        for name in ("p50", "p99"):
            busy, idle = [row[f"upload_{name}"] for row in rows], [row[f"idle_{name}"] for row in rows]
            ratios = [one / other for one, other in zip(busy, idle, strict=True)]
            print(f"{cores:<16} {name}  {spread(busy):>22}  {spread(idle):>22}  {spread(ratios)}×")
    print("goal: p99 ≤ 1.10× with a core to spare")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
