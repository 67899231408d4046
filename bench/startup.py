"""Wall time of a 5-step job: `trainyard run` against plain torchrun with the same job, interleaved.

    python -m bench.startup [repeats]

What is counted: from the shell's call to the process's end, with everything in between: start-up, data,
5 steps, one checkpoint, the final model; for trainyard also its card, curves and report.
"""

import statistics
import sys
import tempfile
from pathlib import Path

from bench.common import BIN, job, make_inputs, save, spread, timed


def main(repeats: int = 5) -> None:
    """Print the table and save the numbers."""
    ours, plain = [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_inputs(folder)
        script = str(Path(__file__).with_name("plain_trainer.py"))
        torchrun = [str(BIN / "torchrun"), "--nproc-per-node=2", script, str(folder), "5"]
        timed(torchrun, folder / "warm-up.log")  # the data set's cache, for both sides
        for repeat in range(repeats):
            ours.append(
                timed([str(BIN / "trainyard"), "run", str(job(folder, f"run-{repeat}", 5))], folder / "ours.log")
            )
            plain.append(timed(torchrun, folder / "plain.log"))
            print(f"  {repeat + 1}/{repeats}: trainyard {ours[-1]:.1f} s, torchrun {plain[-1]:.1f} s", file=sys.stderr)
            ratio = statistics.median(ours) / statistics.median(plain)
            save("startup", {"trainyard_s": ours, "torchrun_s": plain, "ratio": ratio})
    print(f"5-step job, 2 processes, wall seconds, median (range) of {repeats}")
    print(f"  torchrun + Trainer   {spread(plain)}")
    print(f"  trainyard run        {spread(ours)}   {ratio:.2f}× torchrun (goal ≤ 2)")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
