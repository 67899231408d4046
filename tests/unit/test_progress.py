"""What ranks report, and who is listened to."""

import io
import json
import threading
from typing import Any

import pytest

from trainyard.launch.reporter import Reporter
from trainyard_operator.informer import Informer
from trainyard_operator.progress import Progress, Server


def test_a_report_of_an_attempt_that_is_over_or_of_a_job_that_was_before_is_not_taken() -> None:
    progress = Progress(lambda _: None)
    progress.take("team/job", "first", {"trainyard": {"attempt": 2, "phase": "restarting"}})
    progress.take("team/job", "first", {"trainyard": {"attempt": 1, "phase": "training", "step": 9}})
    assert progress.get("team/job", "first")["phase"] == "restarting"
    progress.take("team/job", "second", {"trainyard": {"attempt": 1, "phase": "starting"}})
    assert progress.get("team/job", "first") == {}
    assert progress.get("team/job", "second")["attempt"] == 1


def test_what_the_operator_finds_out_itself_is_not_taken_from_a_report() -> None:
    progress = Progress(lambda _: None)
    progress.take("team/job", "1", {"trainyard": {"eta": {"a": 1}, "step_seconds": 1, "moved": "soon", "free": 3}})
    known = progress.get("team/job", "1")
    assert "eta" not in known
    assert "free" not in known
    assert isinstance(known["moved"], float)


def test_a_number_that_is_none_is_not_taken_from_a_report() -> None:
    progress = Progress(lambda _: None)
    progress.take(
        "team/job", "1", {"trainyard": {"attempt": 1, "goodput_share": float("nan"), "eval_f1": float("inf")}}
    )
    assert set(progress.get("team/job", "1")) & {"goodput_share", "eval_f1"} == set()


def test_what_no_step_came_of_has_not_moved() -> None:
    progress = Progress(lambda _: None)
    progress.take("team/job", "1", {"trainyard": {"attempt": 1, "step": 9}})
    moved = progress.get("team/job", "1")["moved"]
    progress.take("team/job", "1", {"trainyard": {"attempt": 1, "step": 9, "phase": "training"}})
    assert progress.get("team/job", "1")["moved"] == moved
    progress.take("team/job", "1", {"trainyard": {"attempt": 2}})
    assert progress.get("team/job", "1")["moved"] > moved


def test_an_attempt_goes_on_from_its_checkpoint_and_how_far_the_one_before_came_is_kept() -> None:
    progress = Progress(lambda _: None)

    def told(**values: Any) -> tuple[int, int]:
        progress.take("team/job", "1", {"trainyard": values})
        known = progress.get("team/job", "1")
        return known["step"], known["reached"]

    assert told(attempt=1, step=50, total=90) == (50, 0)
    assert told(attempt=2, resumed="00000040-00001", step=40, reached=53, cause="killed") == (40, 53)
    assert told(attempt=2, step=44) == (44, 53)
    # Another driver's: it has seen no step. And one whose attempt before made none.
    assert told(attempt=3, resumed="00000040-00001") == (40, 44)
    assert told(attempt=4, resumed="00000040-00001", step=40, reached=40) == (40, 40)
    assert told(attempt=5, resumed="none of ours") == (0, 40)


class Reviews:
    """An API server that takes no token, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def request(self, *_: Any, **__: Any) -> dict[str, Any]:
        self.asked += 1
        return {"status": {"authenticated": False}}


def test_who_has_no_token_of_ours_cannot_make_the_api_server_review_one_after_the_other() -> None:
    api, leads, told = Reviews(), threading.Event(), []
    leads.set()
    app = Server(api, Informer(api, "", print), Informer(api, "", print), Progress(print), leads)  # type: ignore[arg-type]
    for address in ("10.0.0.1", "10.0.0.1", "10.0.0.2"):
        asked = {
            "PATH_INFO": "/apis/trainyard.dev/v1alpha1/namespaces/a/trainerjobs/b/progress", "REQUEST_METHOD": "POST",
            "REMOTE_ADDR": address, "HTTP_AUTHORIZATION": "Bearer made-up", "CONTENT_LENGTH": "2",
            "wsgi.input": io.BytesIO(b"{}"),
        }  # fmt: skip
        app(asked, lambda status, _: told.append(status[:3]))
    assert told == ["401", "429", "401"]
    assert api.asked == 2


def test_token_is_looked_at_before_the_body() -> None:
    body = io.BytesIO(b"{}")
    leads, told = threading.Event(), list[str]()
    leads.set()
    api = Reviews()
    app = Server(api, Informer(api, "", print), Informer(api, "", print), Progress(print), leads)  # type: ignore[arg-type]
    asked = {
        "PATH_INFO": "/apis/trainyard.dev/v1alpha1/namespaces/a/trainerjobs/b/progress", "REQUEST_METHOD": "POST",
        "CONTENT_LENGTH": "2", "wsgi.input": body,
    }  # fmt: skip
    app(asked, lambda status, _: told.append(status[:3]))
    assert told == ["401"]
    assert body.tell() == 0, "a client without a token can make the operator wait for its body"


@pytest.mark.parametrize(
    ("report", "eta"),
    [
        ({"trainyard": {"attempt": 2, "step": 52, "total": 100, "eta_seconds": 420.0}}, 420),
        ({"trainyard": {"attempt": 2, "step": 52, "total": 100}}, None),
        ({"trainyard": {"attempt": 2, "phase": "restarting"}}, None),
        (
            {"trainerStatus": {"estimatedRemainingSeconds": 59, "metrics": [{"name": "current_step", "value": "52"}]}},
            59,
        ),
    ],
    ids=["of this attempt", "not known yet", "restarting", "unmodified Trainer"],
)
def test_eta_is_what_the_attempt_reports(report: dict[str, Any], eta: int | None) -> None:
    progress = Progress(lambda _: None)
    before = {"attempt": 1, "step": 50, "total": 100, "eta_seconds": 2977.0}
    progress.take("team/job", "1", {"trainyard": before})
    assert progress.get("team/job", "1")["eta"] == 2977
    progress.take("team/job", "1", report)
    assert progress.get("team/job", "1").get("eta") == eta


@pytest.fixture
def reporter(monkeypatch: pytest.MonkeyPatch) -> Reporter:
    monkeypatch.delenv("KUBEFLOW_TRAINER_SERVER_URL", raising=False)
    return Reporter()


def test_report_stays_small_whatever_is_logged(reporter: Reporter) -> None:
    for step in range(1000):
        reporter.show({"event": "log", "step": step, "total": 1000, f"eval_at_{step}": 0.5, "eval_" + "x" * 900: 1.0})
    reporter.show({"event": "final", "url": "u", "metrics": {}})
    values = reporter._values
    assert values["step"] == 999
    assert "eval_at_999" in values
    assert len(json.dumps(values)) < 4096


def test_estimate_of_an_earlier_attempt_is_not_reported(reporter: Reporter) -> None:
    reporter.show({"event": "step", "step": 50, "total": 100, "eta_seconds": 60.0, "attempt": 1})
    reporter.show({"event": "restart", "message": "killed", "plan": "at once"})
    assert "eta_seconds" not in reporter._values
