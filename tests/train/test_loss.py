"""The loss of a step does not depend on how its samples are split over batches and ranks."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What tests/train/step_losses.py measures, alone and on two ranks."""
    folder = tmp_path_factory.mktemp("losses")
    alone = _measured(folder, 1)
    together = _measured(folder, 2)
    return {family: alone[family] | together[family] for family in alone}


def _measured(folder: Path, ranks: int) -> dict[str, dict[str, Any]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    group = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if ranks > 1 else {}
    processes = []
    for rank in range(ranks):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else {}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.train.step_losses", str(folder / "output")],
                cwd=ROOT,
                env={**os.environ, **group, **place, "OMP_NUM_THREADS": "1"},
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
    ends = [process.communicate(timeout=300) for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(stderr for _, stderr in ends)
    line = next(line for line in ends[0][0].splitlines() if line.startswith("FOUND "))
    return json.loads(line.removeprefix("FOUND "))


@pytest.mark.parametrize("split", ["8x1", "2x4", "1x8", "2 ranks", "2 ranks, 2x2"])
@pytest.mark.parametrize("family", ["sequence", "token", "image"])
def test_a_split_keeps_loss_and_gradients(losses: dict[str, dict[str, Any]], family: str, split: str) -> None:
    correct = losses[family]["correct"]["steps"]
    assert losses[family][split]["steps"] == pytest.approx(correct, rel=1e-4), "plain Trainer, dividing by the labels"


@pytest.mark.parametrize("family", ["sequence", "token", "image"])
def test_two_ranks_keep_the_evaluation_loss(losses: dict[str, dict[str, Any]], family: str) -> None:
    assert losses[family]["2 ranks"]["eval_loss"] == pytest.approx(losses[family]["8x1"]["eval_loss"], rel=1e-5)
