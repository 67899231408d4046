"""Which events a job's status makes: each fault is told once, with its cause."""

from datetime import timedelta
from typing import Any

from tests.unit.jobs import NOW
from tests.unit.pods import FIRST_ATTEMPT, deleted, ended, look, real
from trainyard_operator.events import Event, events

ASKED = "job-1 was asked to go: it saves, and a new one takes its place"


def told(*looks: dict[str, Any]) -> list[Event]:
    """The events of looks in turn, each given by its pods, its report and its seconds since the first."""
    status: dict[str, Any] = {"state": "Running", "reason": "Running"}
    status |= {"attempts": [{"number": 1, "startTime": "2026-01-01T00:00:00Z"}]}
    found: list[Event] = []
    for each in looks:
        now = NOW + timedelta(seconds=each["at"])
        after = look(each["pods"], status, progress=each["report"], now=now).status
        found += events(status, after)
        status = after
    assert status["state"] == "Running"
    return found


def test_worker_that_was_asked_to_go_makes_one_normal_event() -> None:
    lost = "the node of a worker is gone, or Ray's processes there"
    restarting = FIRST_ATTEMPT | {"phase": "restarting", "cause": lost}
    second = restarting | {"attempt": 2, "resumed": "00000007-00001"}
    found = told(
        {"at": 10, "pods": [real(0), deleted(1, 10)], "report": FIRST_ATTEMPT},
        {"at": 11, "pods": [real(0)], "report": restarting},
        {"at": 12, "pods": [real(0), real(1, "Pending")], "report": restarting},
        {"at": 14, "pods": [real(0), real(1)], "report": restarting},
        {"at": 16, "pods": [real(0), real(1)], "report": second},
        {"at": 20, "pods": [real(0), real(1)], "report": second | {"phase": "training", "moved": NOW.timestamp() + 19}},
    )
    assert found == [Event("Normal", "Evicted", ASKED), Event("Normal", "Running", "")]


def test_fault_in_a_new_attempt_is_told_with_its_own_cause() -> None:
    second = FIRST_ATTEMPT | {"attempt": 2, "phase": "restarting", "cause": "a node is gone"}
    third = second | {"attempt": 3, "cause": "rank 1: killed"}
    found = told(
        {"at": 10, "pods": [real(0), deleted(1, 10)], "report": FIRST_ATTEMPT},
        {"at": 14, "pods": [real(0), real(1)], "report": second},
        {"at": 18, "pods": [real(0), real(1)], "report": third},
        {"at": 20, "pods": [real(0), real(1)], "report": third | {"phase": "training", "moved": NOW.timestamp() + 19}},
    )
    assert [(event.type, event.message) for event in found] == [
        ("Normal", ASKED), ("Warning", "rank 1: killed"), ("Normal", ""),
    ]  # fmt: skip


def test_pod_that_failed_makes_one_warning() -> None:
    report = FIRST_ATTEMPT | {"phase": "restarting", "cause": "a node is gone"}
    found = told(
        {
            "at": 10,
            "pods": [real(0), ended(1, 75, outcome="Infrastructure", message="the head died")],
            "report": FIRST_ATTEMPT,
        },
        {"at": 11, "pods": [real(0), real(1, "Pending")], "report": FIRST_ATTEMPT},
        {"at": 14, "pods": [real(0), real(1)], "report": report},
        {
            "at": 20,
            "pods": [real(0), real(1)],
            "report": report | {"attempt": 2, "phase": "training", "moved": NOW.timestamp() + 19},
        },
    )
    assert found == [Event("Warning", "Restarting", "job-1: the head died"), Event("Normal", "Running", "")]
