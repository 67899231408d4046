"""The Lease: how an operator gets it, keeps it, loses it with a word, and gives it up."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from trainyard_operator import leader as leader_module
from trainyard_operator import main as main_module
from trainyard_operator.api import ApiError
from trainyard_operator.leader import Leader
from trainyard_operator.main import Operator
from trainyard_operator.render import Settings


class Leases:
    """An API server with one Lease, that can be told to refuse or to hang."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.refusal: ApiError | None = None
        self.hangs, self.asked = threading.Event(), threading.Event()
        self.go_on = threading.Event()
        self.renewals = 0

    def get(self, path: str) -> dict[str, Any] | None:
        self.asked.set()
        if self.hangs.is_set():
            self.go_on.wait(20)
        if self.refusal:
            raise self.refusal
        return None if self.lease is None else {**self.lease, "spec": dict(self.lease["spec"])}

    def request(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.renewals += 1
        self.lease = body
        return body

    @property
    def holder(self) -> str:
        assert self.lease is not None
        return str(self.lease["spec"]["holderIdentity"])


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Leases:
    monkeypatch.setattr(leader_module, "_RETRY", 0.02)
    monkeypatch.setattr(leader_module, "_RENEW", 0.3)
    return Leases()


def kept(api: Leases) -> tuple[Leader, threading.Event]:
    """A leader that renews its Lease, and what is set when it has lost it."""
    leader, lost = Leader(api, "system"), threading.Event()  # type: ignore[arg-type]
    assert leader.acquire()
    leader.keep(lost.set)
    return leader, lost


def refuse(api: Leases) -> None:
    api.refusal = ApiError(500, "etcdserver: request timed out")


def usurp(api: Leases) -> None:
    assert api.lease is not None
    api.lease = {"spec": {**api.lease["spec"], "holderIdentity": "another_1", "renewTime": "later"}}


@pytest.mark.parametrize(
    ("break_", "words"),
    [
        (refuse, "etcdserver: request timed out"),
        (lambda api: api.hangs.set(), "the API server has not answered"),
        (usurp, "another_1 holds it"),
    ],
    ids=["refused", "hangs", "held by another"],
)
def test_lost_lease_is_told_with_the_answer(
    api: Leases, caplog: pytest.LogCaptureFixture, break_: Callable[[Leases], None], words: str
) -> None:
    leader, lost = kept(api)
    break_(api)
    assert lost.wait(10)
    api.go_on.set()
    leader._stopped.set()
    ours = [record for record in caplog.records if record.name == leader_module.__name__]
    (line,) = [record.message for record in ours if record.levelno == logging.ERROR]
    assert line.startswith("the lease trainyard-operator could not be renewed for 0 s: ")
    assert words in line


def test_why_an_operator_waits_is_told_once(api: Leases, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    refuse(api)
    leader = Leader(api, "system")  # type: ignore[arg-type]
    waiting = threading.Thread(target=leader.acquire)
    waiting.start()
    for _ in range(3):
        api.asked.clear()
        assert api.asked.wait(5)
    leader._stopped.set()
    waiting.join(5)
    lines = [record.message for record in caplog.records if record.name == leader_module.__name__]
    assert lines == ["waiting for the lease trainyard-operator: etcdserver: request timed out"]


def test_released_lease_is_not_taken_again(api: Leases) -> None:
    leader, lost = kept(api)
    leader.release()
    renewals = api.renewals
    assert api.holder == ""
    assert leader._renewer is not None
    assert not leader._renewer.is_alive()
    assert not lost.wait(0.5), "it was given up, not lost"
    assert (api.holder, api.renewals) == ("", renewals)


def test_release_ends_the_wait_for_the_lease(api: Leases) -> None:
    refuse(api)
    leader, answers = Leader(api, "system"), list[bool]()  # type: ignore[arg-type]
    waiting = threading.Thread(target=lambda: answers.append(leader.acquire()))
    waiting.start()
    leader.release()
    waiting.join(5)
    assert answers == [False]


def test_hanging_renewal_leaves_the_lease_to_expire(api: Leases, caplog: pytest.LogCaptureFixture) -> None:
    leader, _ = kept(api)
    api.hangs.set()
    api.asked.clear()
    assert api.asked.wait(5)
    leader.release()
    api.go_on.set()
    assert "its renewal hangs" in caplog.text
    assert api.holder == leader._me


@pytest.mark.parametrize("in_time", [True, False], ids=["in time", "too long"])
def test_lease_outlasts_every_pass(monkeypatch: pytest.MonkeyPatch, api: Leases, in_time: bool) -> None:
    monkeypatch.setattr(main_module, "_FINISH_SECONDS", 10.0 if in_time else 0.1)
    operator = Operator(None, Settings(image="trainer", progress_url="https://operator", ca="CA"))  # type: ignore[arg-type]
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    leader, _ = kept(api)
    monkeypatch.setattr(leader, "release", lambda: released.append(ended.is_set()))
    released: list[bool] = []

    def reconcile(key: str) -> None:
        begun.set()
        go_on.wait(10)
        ended.set()

    monkeypatch.setattr(operator.reconciler, "reconcile", reconcile)
    operator.start_work()
    operator.queue.add("team/job")
    assert begun.wait(5)
    if in_time:
        threading.Timer(0.2, go_on.set).start()
    main_module._hand_over(operator, leader)
    assert released == ([True] if in_time else []), "released with a pass that still ran"
    go_on.set()
    leader._stopped.set()
