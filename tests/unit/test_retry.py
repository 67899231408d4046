"""Whether there is another attempt, and when: functions from the failures of a run to a decision."""

import pytest

from trainyard.launch.retry import Ended, decide
from trainyard.protocol.ending import Cause, Ending
from trainyard.spec.model import Restart


def failed(
    cause: Cause = Cause.SIGNAL, message: str = "lost", step: int = 5, where: str = "", progressed: bool = False
) -> Ended:
    return Ended(Ending.fault(cause, message, step, where), progressed)


def raised(step: int, where: str, progressed: bool = False) -> Ended:
    return failed(Cause.CODE, "KeyError: 'x'", step, where, progressed)


@pytest.mark.parametrize(
    ("history", "delay"),
    [
        ([Ended(Ending.user_error("bad data", 5), False)], None),
        ([failed()], 0.0),
        ([failed(step=1), failed(step=2)], 1.0),
        ([failed(step=1), failed(step=2), failed(step=3)], 2.0),
        ([failed(step=1, progressed=True), failed(step=9, progressed=True)], 0.0),
        ([raised(5000, "a.py:3"), raised(5000, "a.py:3")], None),
        ([raised(5000, "a.py:3"), raised(5000, "b.py:4")], 1.0),
        ([raised(5000, "a.py:3"), raised(5000, "a.py:3", progressed=True)], 0.0),
        ([failed(), failed()], 1.0),
        ([failed(), failed(), failed()], None),
        ([failed(progressed=True), failed(progressed=True), failed(progressed=True)], 0.0),
        ([failed(step=n, progressed=True) for n in range(11)], None),
    ],
    ids=[
        "user",
        "first",
        "second",
        "third",
        "progress",
        "same-line",
        "another-line",
        "same-line-with-progress",
        "twice",
        "thrice",
        "same-with-progress",
        "budget",
    ],
)
def test_another_attempt_or_not(history: list[Ended], delay: float | None) -> None:
    assert decide(history, Restart()).delay == delay


def test_the_loss_of_what_it_ran_on_says_nothing_of_the_job() -> None:
    lost = [failed(Cause.WORKER, "a worker was lost")] * 4
    assert decide(lost, Restart()).delay == 4.0


def test_no_restart_is_counted_for_what_is_no_fault() -> None:
    """A lost node, or a worker that was asked to go before there was a step to save: however often."""
    taken = [failed(Cause.NODE, "the node of a worker is gone", progressed=True)] * 30
    assert decide(taken, Restart(maxRestarts=1)).delay == 0.0
    assert decide([*taken, failed(progressed=True)], Restart(maxRestarts=1)).delay == 0.0


def test_faults_before_the_window_are_forgotten() -> None:
    history = [Ended(failed(step=n, progressed=True).ending, True, at=1000.0 * n) for n in range(30)]
    assert decide(history, Restart(maxRestarts=4, windowSeconds=3600)).delay == 0.0
    assert decide(history, Restart(maxRestarts=3, windowSeconds=3600)).delay is None


@pytest.mark.parametrize(
    ("cause", "times"),
    [
        (Cause.CODE, 2),
        (Cause.SIGNAL, 3),
        (Cause.HANG, 3),
        (Cause.PEER, 3),
        (Cause.RAY, 3),
        (Cause.STORAGE, 3),
        (Cause.NETWORK, 8),
        (Cause.RENDEZVOUS, 8),
    ],
)
def test_same_failure_ends_with_its_own_words(cause: Cause, times: int) -> None:
    same = [failed(cause, f"attempt {number}", step=7, where="a.py:3") for number in range(times)]
    assert decide(same[:-1], Restart()).delay is not None
    over = decide(same, Restart())
    assert (over.delay, over.final) == (None, True)
    assert over.reason == f"attempt {times - 1} ({times} times at step 7, nothing committed between)"


def test_hub_that_is_away_is_tried_again_later_and_later() -> None:
    away = [failed(Cause.NETWORK, "429 Too Many Requests", step=0)] * 7
    delays = [decide(away[: number + 1], Restart()).delay for number in range(7)]
    assert delays == [0, 1, 2, 4, 8, 16, 32]


def test_used_up_budget_is_not_final() -> None:
    """The operator has a budget of its own, and sees what a driver does not: pods and nodes."""
    history = [failed(step=number, progressed=True) for number in range(11)]
    assert not decide(history, Restart()).final
