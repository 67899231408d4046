"""What ranks report, and who is listened to."""

import io
import threading
from typing import Any

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


def test_what_no_step_came_of_has_not_moved() -> None:
    progress = Progress(lambda _: None)
    progress.take("team/job", "1", {"trainyard": {"attempt": 1, "step": 9}})
    moved = progress.get("team/job", "1")["moved"]
    progress.take("team/job", "1", {"trainyard": {"attempt": 1, "step": 9, "phase": "training"}})
    assert progress.get("team/job", "1")["moved"] == moved
    progress.take("team/job", "1", {"trainyard": {"attempt": 2}})
    assert progress.get("team/job", "1")["moved"] > moved


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
    app = Server(api, Informer(api, "", print), Progress(print), leads)  # type: ignore[arg-type]
    for address in ("10.0.0.1", "10.0.0.1", "10.0.0.2"):
        asked = {
            "PATH_INFO": "/apis/trainyard.dev/v1alpha1/namespaces/a/trainerjobs/b/progress", "REQUEST_METHOD": "POST",
            "REMOTE_ADDR": address, "HTTP_AUTHORIZATION": "Bearer made-up", "CONTENT_LENGTH": "2",
            "wsgi.input": io.BytesIO(b"{}"),
        }  # fmt: skip
        app(asked, lambda status, _: told.append(status[:3]))
    assert told == ["401", "429", "401"]
    assert api.asked == 2
