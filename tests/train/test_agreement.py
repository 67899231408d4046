"""Ranks agree on what they must do at the same step, also when steps are shorter than an agreement is far from the next."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.bed.s3 import free_ports
from tests.train.agreeing import ASKED, BUSY, TOLD

MOST = 2 + 16
"""Steps from a wish to the deed: to the next agreement, and to the step that reads it."""


def test_what_one_rank_is_asked_both_do_once_and_at_the_same_step(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    files = [tmp_path / "0.json", tmp_path / "1.json"]
    ranks = [
        subprocess.Popen([sys.executable, "-m", "tests.train.agreeing", str(file)], env={**shared, "RANK": str(rank)})
        for rank, file in enumerate(files)
    ]
    try:
        assert [rank.wait(timeout=100) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    first, second = (json.loads(file.read_text()) for file in files)
    assert first == second
    asked, stopped = first["saved"]  # a stop saves too
    assert ASKED < asked <= ASKED + MOST
    assert BUSY < first["busy"][0] <= BUSY + MOST
    assert TOLD < stopped <= TOLD + MOST
    assert first["stopped"] == [stopped]
