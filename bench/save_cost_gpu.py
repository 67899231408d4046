"""What a save costs training on a GPU: bench.save_cost with 2 GB of state, in bf16, and folders instead of a sink.

    python -m bench.save_cost_gpu [saves [runs]]

Every step is waited for, so that blocked is what the device stands still between two steps; what the next step waits
for within the device is part of what is lost.
"""

import sys
import tempfile
from pathlib import Path

from bench.common import save
from bench.save_cost import FRESH, run, table

EVERY = {
    "none": 40, "ours-none": 40, "ours": 40,
    "memory": 12, "disk": 12, "dcp-thread": 24, "dcp-process": 24, "ray-stock": 12,
}  # fmt: skip
"""By mode: steps between two saves, an eighth of a second each."""
_THREADS = 8


def main(saves: int = 7, runs: int = 3) -> None:
    """Print the table and save the numbers."""
    rows: dict[str, list[dict[str, float]]] = {mode: [] for mode in EVERY}
    for number in range(runs):
        for mode in EVERY:
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary)
                job = f"  workers: {{gpus: 1}}\n  storage: {{uri: {folder}/ours}}\n"
                rows[mode].append(run(mode, saves, EVERY[mode], _THREADS, folder, job))
            told = ", ".join(f"{name} {value:.4g}" for name, value in rows[mode][-1].items())
            print(f"  {number + 1}/{runs}: {mode}: {told}", file=sys.stderr, flush=True)
            save("save_cost_gpu", rows)
    print(f"2 GB of state on a GPU: seconds a save, median (range) of {runs} runs of {saves} saves,")
    print(f"of which the first {FRESH} make their buffers and stand apart")
    print("\n".join(table(rows, saves)))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
