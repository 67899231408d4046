"""Where an attempt's time goes."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from trainyard.train.goodput import Clock, GoodputCallback
from trainyard.train.saving import Totals


def test_what_passed_before_this_process_began_is_start_up_and_restore(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("begun", "restore"):  # of this process: set back at the end
        monkeypatch.setattr(Clock, name, getattr(Clock, name))
    saving: Any = SimpleNamespace(totals=Totals())
    log: Any = SimpleNamespace(lost_steps=0)
    Clock.start(time.time() - 100, restoring=40)
    split = GoodputCallback(saving, log, 2).split()
    assert split["restore"] == 40
    assert 60 <= split["start_up"] < 70
