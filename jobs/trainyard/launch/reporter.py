"""Progress to the operator, over HTTPS, in the words of transformers' own KubeflowCallback and a few of ours.

https://github.com/huggingface/transformers/blob/main/src/transformers/integrations/integration_utils.py
(KUBEFLOW_TRAINER_SERVER_URL, _CA_CERT and _TOKEN). An operator that is away costs nothing: the next report
says the same and more.
"""

import json
import os
import ssl
import threading
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainyard.spec.status import METRICS, WORD_LENGTH
from trainyard.storage.layout import CheckpointId

_INTERVAL = 2.0
_TIMEOUT = 5.0
_LAST_TRIES, _LAST_PAUSE = 3, 0.6
"""The last report says how far it came: it may be refused once for coming too soon after the one before."""
_EVALUATION = "eval_"
_NUMBERS = (
    "step", "total", "loss", "samples_per_second", "tokens_per_second", "step_seconds", "eta_seconds",
    "goodput_share", "epoch",
)  # fmt: skip
_ENV = "KUBEFLOW_TRAINER_SERVER_"


class Reporter:
    """Keeps the newest numbers, and posts them not more often than every two seconds."""

    def __init__(self) -> None:
        self._url = os.environ.get(f"{_ENV}URL", "")
        self._values: dict[str, Any] = {}
        self._changed = threading.Condition()
        self._dirty = self._closed = False
        self._thread = threading.Thread(target=self._loop, name="reporter", daemon=True)
        if self._url:
            self._thread.start()

    def show(self, event: dict[str, Any]) -> None:
        """Take an event."""
        with self._changed:
            news = _news(event, self._values)
            if not news:
                return
            if event["event"] in ("attempt", "restart", "train"):  # the estimate was of steps before
                self._values.pop("eta_seconds", None)
            if "attempt" in event:
                news["attempt"] = event["attempt"]
            self._values = _bounded({**self._values, **news})
            self._dirty = True
            self._changed.notify()

    def close(self) -> None:
        """Post what has not been posted, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._url:
            self._thread.join(2 * _TIMEOUT)

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._dirty or self._closed)
                if not self._dirty:
                    return
                self._dirty = False
                values, closed = dict(self._values), self._closed
            if closed:
                for _ in range(_LAST_TRIES):
                    if self._post(values):
                        return
                    time.sleep(_LAST_PAUSE)
                return
            # Of two operators one takes it: a second connection may come to the other.
            posted = self._post(values) or self._post(values)
            with self._changed:
                self._dirty = self._dirty or not posted
                self._changed.wait_for(lambda: self._closed, timeout=_INTERVAL)

    def _post(self, values: dict[str, Any]) -> bool:
        status: dict[str, Any] = {"lastUpdatedTime": datetime.now(UTC).isoformat()}
        step, total = values.get("step"), values.get("total")
        if step is not None and total:
            status["progressPercentage"] = min(99, step * 100 // total)
        metrics = {name: value for name, value in values.items() if isinstance(value, int | float)}
        status["metrics"] = [{"name": name, "value": str(value)} for name, value in metrics.items()]
        body = json.dumps({"trainerStatus": status, "trainyard": values}).encode()
        try:
            token = Path(os.environ[f"{_ENV}TOKEN"]).read_text(encoding="utf-8").strip()
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            request = urllib.request.Request(self._url, body, headers, method="POST")  # noqa: S310 - the operator's own
            context = ssl.create_default_context(cafile=os.environ.get(f"{_ENV}CA_CERT"))
            urllib.request.urlopen(request, timeout=_TIMEOUT, context=context).read()  # noqa: S310
        except (OSError, KeyError, ValueError):
            return False
        return True


def _news(event: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """What an event says for the report, beside the values before; empty when it says nothing."""
    match event["event"]:
        case "train" | "step" | "log":
            numbers = {name: event[name] for name in _NUMBERS if name in event}
            return {**numbers, **_evaluation(event), "phase": "training"}
        case "phase":
            return {"phase": event["text"]}
        case "attempt":
            return _of_attempt(event, values)
        case "checkpoint":
            return {"checkpoint": event["id"]}
        case "complete":
            return {"complete": event["url"], "step": event["step"], "total": event["step"]}
        case "final":
            return _evaluation(event["metrics"] or {})
        case "restart":
            return {"cause": event["message"], "free": event.get("free", False), "phase": "restarting"}
    return {}


def _of_attempt(event: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    # An attempt without a cause is the first of this driver: what an earlier driver reported is not its own.
    cause = values.get("cause")
    news = {
        "resumed": event["resumed"],
        "cause": cause,
        "free": values.get("free", False),
        "phase": "restarting" if cause else "starting",
    }
    if "step" in values:  # the attempt resumes from there
        news |= {"reached": values["step"], "step": CheckpointId.step_of(event["resumed"])}
    return news


def _evaluation(event: dict[str, Any]) -> dict[str, Any]:
    """The metrics of an evaluation; one with a name too long for the status is left out."""
    return {name: value for name, value in event.items() if name.startswith(_EVALUATION) and len(name) <= WORD_LENGTH}


def _bounded(values: dict[str, Any]) -> dict[str, Any]:
    """The values with the newest METRICS metrics only: a script may log one of another name at each step."""
    metrics = [name for name in values if name.startswith(_EVALUATION)]
    surplus = set(metrics[:-METRICS])
    return {name: value for name, value in values.items() if name not in surplus}
