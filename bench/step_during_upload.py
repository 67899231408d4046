"""How long training steps take while a checkpoint is uploaded, against steps while none is.

    python -m bench.step_during_upload [saves]

The job of bench.save_cost, 1 GB of state to a sink of 100 MB/s, saves so seldom that half of its time no upload runs.
A step counts as one during an upload when the sink receives a body within it, by the same clock. Steps that copy the
state into its buffers, and those of the first saves, which make these buffers, are bench.save_cost's.
"""

import os
import statistics
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from bench.common import save
from bench.save_cost import FRESH, trained
from bench.sink import Shape, shaped

EVERY = 84
"""Steps between two saves on two cores, a quarter of a second each: twice the time of an upload."""
_COPYING = 2
"""Steps after a save in which its copies are made."""
Span = tuple[float, float]


def sorted_out(begins: list[float], ends: list[float], every: int, uploads: Iterable[Span]) -> tuple[list[float], ...]:
    """Seconds of the steps during uploads, and of the others; both ascending."""
    busy, idle = list[float](), list[float]()
    spans = list(uploads)
    for index, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        if index >= FRESH * every and index % every > _COPYING:
            chosen = busy if any(start < end and begin < stop for start, stop in spans) else idle
            chosen.append(end - begin)
    return sorted(busy), sorted(idle)


def joined(bodies: Iterable[Span], gap: float = 0.5) -> list[Span]:
    """Uploads, of the bodies that they consist of: what follows within so many seconds is one."""
    found = list[Span]()
    for begin, end in sorted(bodies):
        if found and begin - found[-1][1] < gap:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return found


def main(saves: int = 7) -> None:
    """Print the table and save the numbers."""
    rows = []
    for cores, threads in (("a core to spare", 1), ("all cores busy", 2)):
        with tempfile.TemporaryDirectory() as temporary, shaped(Shape(total=100e6)) as sink:
            os.environ.update(sink.environment)
            every = EVERY * (threads + 1) // 3
            document = trained("ours", saves, every, threads, Path(temporary))
            uploads = joined(sink.bodies())
            seconds = dict(
                zip(("upload", "idle"), sorted_out(document["begins"], document["ends"], every, uploads), strict=True)
            )
        row: dict[str, float | str] = {
            "cores": cores,
            "upload_s": statistics.median(end - begin for begin, end in uploads),
        }
        for name, each in seconds.items():
            quantiles = statistics.quantiles(each, n=100)
            row |= {f"{name}_steps": len(each), f"{name}_p50": quantiles[49], f"{name}_p99": quantiles[98]}
        rows.append(row)
        print(f"  {row}", file=sys.stderr, flush=True)
    print("Seconds a step during an upload of 1 GB at 100 MB/s, against idle")
    print(f"{'':<18}{'steps':>12}{'p50':>22}{'p99':>22}")
    for row in rows:
        line = f"{row['cores']:<18}{row['upload_steps']:>6}/{row['idle_steps']:<5}"
        for name in ("p50", "p99"):
            busy, idle = float(row[f"upload_{name}"]), float(row[f"idle_{name}"])
            line += f"{busy:>9.3f}/{idle:.3f} {busy / idle:>5.2f}×"
        print(line)
    print("goal: p99 ≤ 1.10× with a core to spare")
    save("step_during_upload", rows)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
