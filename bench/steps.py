"""Steps per second of `trainyard run` against torchrun with the same Trainer, interleaved.

    python -m bench.steps [repeats]

Timed are steps 20 to 120, inside both runs; start-up and the one save at the end do not count.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path

from bench.common import BIN, job, make_inputs, save, spread, timed

_STEPS, _FIRST = 120, 20


def main(repeats: int = 5) -> None:
    """Print the table and save the numbers."""
    ours, plain = [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_inputs(folder, rows=2048, hidden=128, layers=4)
        script = str(Path(__file__).with_name("plain_trainer.py"))
        times = folder / "times.json"
        torchrun = [str(BIN / "torchrun"), "--nproc-per-node=2", script, str(folder), str(_STEPS), str(times)]
        for repeat in range(repeats):
            timed([str(BIN / "trainyard"), "run", str(job(folder, f"run-{repeat}", _STEPS))], folder / "ours.log")
            rows = map(json.loads, (folder / f"runs/run-{repeat}/metrics.jsonl").read_text().splitlines())
            at = {row["step"]: row["time"] for row in rows if "loss" in row}
            ours.append((_STEPS - _FIRST) / (at[_STEPS] - at[_FIRST]))
            timed(torchrun, folder / "plain.log")
            ends = json.loads(times.read_text())
            plain.append((_STEPS - _FIRST) / (ends[_STEPS - 1] - ends[_FIRST - 1]))
            print(
                f"  {repeat + 1}/{repeats}: trainyard {ours[-1]:.2f}, torchrun {plain[-1]:.2f} steps/s", file=sys.stderr
            )
            ratio = statistics.median(ours) / statistics.median(plain)
            save("steps", {"trainyard": ours, "torchrun": plain, "ratio": ratio})
    print(f"Steps per second, 2 processes, median (range) of {repeats}")
    print(f"  torchrun + Trainer   {spread(plain)}")
    print(f"  trainyard run        {spread(ours)}   {ratio:.3f}× torchrun (goal ≥ 0.99)")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
