"""What a save costs training: 1 GB of state, a sink of 100 MB/s, with a core to spare and without.

    python -m bench.save_cost [saves [runs [threads]]]

With threads only one of the two settings: 1 leaves one of two cores to spare, 2 keep both busy.

Blocked: seconds for which training stands still at a save: between its step and the next, more than between any two,
and waiting within those that follow. Lost: (seconds of a run − those of as many steps of the run without saves beside
it) ÷ saves, from the first steady save on; what works in the background counts, however it disturbs. The run without
saves beside ours is started by trainyard too: what its processes take of a full core, they take with saves and without.
By its own steps: the same against steps of the same run, for this machine is now and then slower, by a tenth within a
minute. Of ours, whose uploads are long: it works in turns of a few seconds, stopped between them (SIGSTOP), and each
turn is compared with the steps before and after it. Of the peers: with the last quarter before a save, when nothing
works in the background any more.
Peers, in the same run: Ray Train's RayTrainReportCallback to the same sink, Trainer's own save to disk and to memory,
and torch.distributed.checkpoint's async_save to disk in a thread and in a process. The first saves of a run, which make
their buffers, stand apart. Each saves as often as it can without meeting the save before.
"""

import functools
import itertools
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.common import BIN, save, spread, timed
from bench.sink import Shape, shaped

FRESH = 2
"""Saves at the beginning that make their buffers."""
FEWEST = FRESH + 2
"""Saves of a run that can be measured: one is steady and has steps after it to be compared with."""
SECONDS = {
    "none": 15, "ours-none": 24, "ours": 24,
    "memory": 3, "disk": 3, "dcp-thread": 6, "dcp-process": 6, "ray-stock": 3,
}  # fmt: skip
"""By mode: of training between two saves, with a core to spare; half as long again without.

An upload takes 10 seconds, 15 on full cores, and half as much again because it is stopped for a third of them. A write
takes 3. The last quarter is free.
"""
NONE = ("none", "ours-none")
"""Modes without saves: as the peers start, and as ours does."""
SETTINGS = {"a core to spare": 1, "all cores busy": 2}
"""Threads that train, of two cores."""
COLUMNS = ("blocked", "lost", "by its own steps", "first save")
Turn = tuple[int, int]
_TURN, _ALONE = 8, 4
"""Steps beside our uploader and steps without it, in turn: it is stopped for these."""
_SCRIPT = Path(__file__).with_name("save_cost_train.py")


def turns_in(every: int) -> list[Turn]:
    """Of our uploader after a save: after which step each begins, and ends. First the state is copied without it."""
    return [(at, at + _TURN) for at in range(2 * _ALONE, every - _TURN - _ALONE + 1, _TURN + _ALONE)]


def step_seconds(threads: int, folder: Path) -> float:
    """Seconds of a step, by a short run: machines differ, and the same one by the hour."""
    ends = trained("none", 1, 20, threads, folder, "")["ends"]
    return statistics.median(after - before for before, after in itertools.pairwise(ends))


def steps_in(seconds: float, threads: int, step: float) -> int:
    """How many steps of so many seconds lie between two saves."""
    return max(3 * _ALONE + _TURN, round(seconds * (threads + 1) / 2 / step))


def trained(
    mode: str, saves: int, every: int, threads: int, folder: Path, job: str, turns: Sequence[Turn] = ()
) -> dict[str, Any]:
    """What save_cost_train.py wrote of a run with so many saves, one every so many steps; `job`: more of our spec."""
    times = folder / "times.json"
    output = Path("/dev/shm/ty-bench") if mode == "memory" else folder / "output"
    os.environ["OMP_NUM_THREADS"] = str(threads)
    arguments = [mode, str(saves), str(every), str(times), str(output)]
    if mode.startswith("ours"):
        _ours([*arguments, json.dumps(turns)], threads, folder, job)
    else:
        # Under torchrun, as ours: a process group of one makes accelerate wrap the model, and steps take longer.
        start = ["python"] if mode == "ray-stock" else ["torchrun", "--nproc-per-node=1"]
        timed([str(BIN / start[0]), *start[1:], str(_SCRIPT), *arguments], folder / f"{mode}.log", threads)
    shutil.rmtree(output, ignore_errors=True)
    document: dict[str, Any] = json.loads(times.read_text())
    told = {"skipped": f"left out, for the one before was not uploaded {every} steps later",
            "late": "uploaded in the last turn of their window, or after it"}  # fmt: skip
    for what, words in told.items():
        if document[what]:
            print(f"  saves {words}: {document[what]}", file=sys.stderr)
    return document


def run(
    mode: str, saves: int, every: int, threads: int, folder: Path, job: str, turns: Sequence[Turn] = ()
) -> dict[str, float]:
    """One run: seconds and steps from the first steady save on, seconds blocked in all, and by the first save."""
    document = trained(mode, saves, every, threads, folder, job, turns)
    begins, ends, waited = document["begins"], document["ends"], document["waited"]
    # Two saves make their buffers; what comes after the second is steady.
    first, start = every, FRESH * every + 2
    between = [0.0, *(after - before for before, after in zip(ends, begins[1:], strict=False))]
    usual = statistics.median(between)
    stood = [between[step] - usual for step in range((FRESH + 1) * every, saves * every + 1, every)]
    return {
        "seconds": ends[-1] - ends[start - 1], "steps": len(ends) - start,
        "blocked": sum(stood) + sum(waited[start:]), "first": between[first] - usual + waited[first],
        "skipped": document["skipped"],
        "beside": in_turns(ends, every, saves, turns) if turns else beside(ends, every, saves),
    }  # fmt: skip


def _took(ends: list[float], first: int, last: int) -> float:
    """Seconds from the end of one step to that of another; steps count from 1."""
    return ends[last - 1] - ends[first - 1]


def beside(ends: list[float], every: int, saves: int) -> float:
    """Seconds a steady save takes more than as many of the steps at the end of its window and of the one before."""
    took = functools.partial(_took, ends)
    quarter, lost = every // 4, []
    for begin in range((FRESH + 1) * every, saves * every, every):
        free = took(begin - quarter, begin) + took(begin + every - quarter, begin + every)
        lost.append(took(begin, begin + every) - every * free / (2 * quarter))
    return statistics.mean(lost)


def in_turns(ends: list[float], every: int, saves: int, turns: Sequence[Turn]) -> float:
    """Seconds a steady save takes: what its copies and our uploader's turns take more than the steps around them."""
    took = functools.partial(_took, ends)
    lost = 0.0
    for begin in range((FRESH + 1) * every, saves * every, every):
        for start, stop in ((begin + start, begin + stop) for start, stop in [(0, _ALONE), *turns]):
            alone = took(start - _ALONE, start) + took(stop, stop + _ALONE)
            lost += took(start, stop) - (stop - start) * alone / (2 * _ALONE)
    return lost / (saves - FRESH - 1)


def on_sink() -> str:
    """The part of our job's spec that says where its checkpoints go."""
    return f"  storage: {{uri: s3://ours/run, endpoint: {os.environ['AWS_ENDPOINT_URL']}}}\n"


def _ours(arguments: list[str], threads: int, folder: Path, job: str) -> None:
    file = folder / "job.yaml"
    listed = json.dumps(arguments)
    file.write_text(
        "apiVersion: trainyard.dev/v1alpha1\nkind: TrainerJob\nmetadata: {name: ours}\nspec:\n"
        f"  script: {{path: {_SCRIPT.name}, args: {listed}}}\n  code: {_SCRIPT.parent}\n  resume: Never\n"
        f"  checkpoint: {{staging: Memory}}\n{job}"
    )
    timed([str(BIN / "trainyard"), "run", str(file)], folder / "ours.log", threads)


def of_a_save(row: dict[str, float], none: dict[str, float], saves: int) -> dict[str, float]:
    """The columns of a run: seconds for each steady save that was made, not for those that were left out.

    All are NaN for a run that left out every one.
    """
    steady = saves - FRESH
    made = steady - row["skipped"] or math.nan
    lost = row["seconds"] - row["steps"] * none["seconds"] / none["steps"]
    each = (row["blocked"] / made, lost / made, row["beside"] * steady / made, row["first"])
    return dict(zip(COLUMNS, each, strict=True))


def table(rows: dict[str, list[dict[str, float]]], saves: int) -> list[str]:
    """The lines of a setting. What is lost is counted against the run without saves of the same round and launcher."""
    lines = [f"{'':<14}" + "".join(f"{name:>34}" for name in COLUMNS)]
    cells = dict[str, dict[str, list[float]]]()
    for mode, each in rows.items():
        beside = rows["ours-none" if mode.startswith("ours") else "none"]
        costs = [of_a_save(row, none, saves) for row, none in zip(each, beside, strict=True)]
        cells[mode] = {name: [cost[name] for cost in costs] for name in COLUMNS}
        lines.append(f"{mode:<14}" + "".join(f"{spread(values):>34}" for values in cells[mode].values()))
    runs = [[row["seconds"] for row in rows[mode]] for mode in NONE]
    drift = max(max(seconds) - min(seconds) for seconds in runs) / (saves - FRESH)
    differ = "one run does not show how much runs without saves differ"
    if len(runs[0]) > 1:
        differ = f"runs without saves differ by {drift:.3f} s for each save that others make in that time"
    noise = max(abs(lost) for mode in NONE for lost in cells[mode]["by its own steps"])
    return [
        *lines,
        f"{differ}; by their own steps they",
        f"lose up to {noise:.3f} s: this is the noise",
        f"blocked {_less(cells, 'blocked', 0)} (goal 1,000)",
        f"lost {_less(cells, 'lost', drift)}",
        f"by its own steps {_less(cells, 'by its own steps', noise)}",
    ]


def _less(cells: dict[str, dict[str, list[float]]], name: str, noise: float) -> str:
    ours, stock = (statistics.median(cells[mode][name]) for mode in ("ours", "ray-stock"))
    if ours > noise:
        return f"{ours:.3g} s, {stock / ours:,.0f}× less than stock"
    if noise <= 0:
        return f"{ours:.3g} s against {stock:.3g} s of stock; one run does not tell how much of it is noise"
    return f"{ours:.3g} s, which is below the noise: at least {stock / noise:.1f}× less than stock"


def main(saves: int = 7, runs: int = 3, *threads: int) -> None:
    """Print the tables and save the numbers."""
    if saves < FEWEST:
        sys.exit(f"{saves} saves are too few: the first {FRESH} make their buffers; give {FEWEST} or more")
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as temporary, shaped(Shape(total=100e6, aside=True)) as sink:
        os.environ.update(sink.environment)
        for cores, busy in SETTINGS.items():
            if threads and busy not in threads:
                continue
            rows = found.setdefault(cores, {mode: [] for mode in SECONDS})
            step = step_seconds(busy, Path(temporary))
            steps = {mode: steps_in(seconds, busy, step) for mode, seconds in SECONDS.items()}
            for number in range(runs):
                for mode, every in steps.items():
                    ours = turns_in(every) if mode.startswith("ours") else ()
                    rows[mode].append(run(mode, saves, every, busy, Path(temporary), on_sink(), ours))
                    told = ", ".join(f"{name} {value:.4g}" for name, value in rows[mode][-1].items())
                    print(f"  {cores}, {number + 1}/{runs}: {mode}: {told}", file=sys.stderr, flush=True)
                    save("save_cost", found)
            print(
                f"\n1 GB of state, 100 MB/s, {cores}: seconds a save, median (range) of {runs} runs of {saves} saves,"
            )
            print(f"of which the first {FRESH} make their buffers and stand apart")
            print("\n".join(table(rows, saves)), flush=True)
    print("goals: lost ≥ 50× less than stock with a core to spare (≤ 0.25 s), ≥ 20× without; below DCP and memory")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
