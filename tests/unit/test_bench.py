"""The tables of benchmarks, from numbers as their runs leave them."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from bench import common, save_cost


def row(lost: float, skipped: int = 0) -> dict[str, float]:
    """A run of 60 steps of a second each, with `lost` seconds for all of its saves."""
    return {
        "seconds": 60.0 + lost, "steps": 60, "blocked": lost / 2, "first": 0.1, "skipped": skipped, "beside": lost / 9,
    }  # fmt: skip


def rows(ours: float, runs: int = 1, skipped: int = 0) -> dict[str, list[dict[str, float]]]:
    lost = dict.fromkeys(save_cost.SECONDS, 6.0) | {"none": 0.0, "ours-none": 0.0, "ours": ours}
    return {mode: [row(value, skipped if mode == "ours" else 0) for _ in range(runs)] for mode, value in lost.items()}


@pytest.mark.parametrize("saves", [save_cost.FEWEST, 5, 7])
@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("ours", [-0.3, 0.0, 0.3], ids=["gain", "nothing", "loss"])
def test_table_comes_of_any_number_of_runs(saves: int, runs: int, ours: float) -> None:
    lines = save_cost.table(rows(ours, runs), saves)
    assert [line.split()[0] for line in lines[1:9]] == list(save_cost.SECONDS)
    last = next(line for line in lines if line.startswith("lost "))
    assert ("× less than stock" in last) == (ours > 0)


def test_run_that_skipped_every_save_is_a_row() -> None:
    cells = save_cost.of_a_save(row(0.3, skipped=3), row(0.0), 5)
    assert math.isnan(cells["lost"])
    assert save_cost.table(rows(0.3, skipped=3), 5)


def test_too_few_saves_are_said_at_once() -> None:
    with pytest.raises(SystemExit, match="give 4 or more"):
        save_cost.main(3, 1, 2)


def test_figures_are_saved_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(save_cost, "step_seconds", lambda *_: 0.1)

    def run(mode: str, *_: Any) -> dict[str, float]:
        if mode == "dcp-thread":
            raise KeyboardInterrupt
        return row(1.0)

    monkeypatch.setattr(save_cost, "run", run)
    with pytest.raises(KeyboardInterrupt):
        save_cost.main(5, 1, 2)
    saved = json.loads((tmp_path / "save_cost.json").read_text())
    assert [mode for mode, runs in saved["all cores busy"].items() if runs] == [
        "none", "ours-none", "ours", "memory", "disk",
    ]  # fmt: skip
