"""Informers and passes against an API server that refuses, forgets and falls silent: a scripted one, over real HTTP."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from kubernetes import client

from tests.conftest import manifest
from trainyard_operator import api as api_module
from trainyard_operator import informer as informer_module
from trainyard_operator import reconcile as reconcile_module
from trainyard_operator.api import Api, ApiError
from trainyard_operator.identity import INDEX_LABEL, JOB_LABEL, group_of
from trainyard_operator.informer import Informer
from trainyard_operator.progress import Progress
from trainyard_operator.progress import Server as ProgressServer
from trainyard_operator.queue import KeyQueue
from trainyard_operator.reconcile import Reconciler
from trainyard_operator.render import Settings

Script = list[Callable[["Answer"], None]]


class Answer:
    """One request, and how it is answered."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self.handler, self.query = handler, parse_qs(urlsplit(handler.path).query)

    def say(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode() + b"\n"
        self.handler.send_response(status)
        self.handler.send_header("Content-Length", str(len(data)))
        self.handler.end_headers()
        self.handler.wfile.write(data)


class Server:
    """Answers lists and watches by a script each, whose last entry is for all that come later."""

    def __init__(self) -> None:
        self.lists: Script = []
        self.watches: Script = []
        self.writes: dict[str, list[int]] = {}
        self.written: list[tuple[str, str]] = []
        self.bodies: list[bytes] = []
        self.over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                answer = Answer(self)
                script = outer.watches if "watch" in answer.query else outer.lists
                step = script.pop(0) if len(script) > 1 else script[0]
                step(answer)

            def write(self) -> None:
                outer.bodies.append(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
                path = urlsplit(self.path).path
                codes = outer.writes.get(f"{self.command} {path.rpartition('/')[2]}", [])
                outer.written.append((self.command, path))
                code = codes.pop(0) if codes else 200
                reason = "AlreadyExists" if code == 409 else ""
                Answer(self).say(code, {"message": "as scripted", "reason": reason})

            do_POST = do_PATCH = do_DELETE = write  # noqa: N815 - the names that http.server calls

            def log_message(self, *_: Any) -> None:
                """Nothing: tests are quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        configuration = client.Configuration()
        configuration.host = f"http://127.0.0.1:{self.http.server_port}"
        self.api = Api(configuration)

    def silence(self, answer: Answer) -> None:
        """A watch that is accepted and then says nothing."""
        answer.handler.send_response(200)
        answer.handler.send_header("Transfer-Encoding", "chunked")
        answer.handler.end_headers()
        answer.handler.wfile.flush()
        self.over.wait()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(informer_module, "_PAUSE", 0.05)
    monkeypatch.setattr(api_module, "_SILENT_SECONDS", 0.5)
    made = Server()
    yield made
    made.over.set()
    made.http.shutdown()
    made.http.server_close()


OWNED = [{"uid": "1", "controller": True}]


def pod(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "team", "resourceVersion": "7"}}


def listing(*names: str) -> Callable[[Answer], None]:
    return lambda answer: answer.say(
        200, {"items": [pod(name) for name in names], "metadata": {"resourceVersion": "7"}}
    )


def refusing(status: int) -> Callable[[Answer], None]:
    return lambda answer: answer.say(status, {"message": "as scripted"})


def gone(answer: Answer) -> None:
    answer.say(200, {"type": "ERROR", "object": {"code": 410, "message": "too old resource version"}})


def followed(server: Server, until: str) -> Informer:
    """An informer that runs until it knows an object."""
    seen = threading.Event()
    informer = Informer(
        server.api, "/api/v1/pods", lambda obj: seen.set() if obj["metadata"]["name"] == until else None
    )
    informer.start()
    assert seen.wait(10), f"{until} was never seen; known: {list(informer.objects)}"
    return informer


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_list_that_is_refused_is_asked_for_again(server: Server, status: int) -> None:
    server.lists = [refusing(status), refusing(status), listing("a")]
    server.watches = [server.silence]
    followed(server, "a")


def test_a_version_that_is_forgotten_is_listed_anew_and_what_is_gone_is_told(server: Server) -> None:
    server.lists = [listing("a"), listing("b")]
    server.watches = [gone, server.silence]
    assert list(followed(server, "b").objects) == ["team/b"]


def test_a_watch_that_falls_silent_is_begun_again_from_where_it_was(server: Server) -> None:
    asked: list[list[str]] = []

    def event(answer: Answer) -> None:
        asked.append(answer.query["resourceVersion"])
        answer.say(200, {"type": "ADDED", "object": pod("b")})

    server.lists = [listing("a")]
    server.watches = [server.silence, event, server.silence]
    followed(server, "b")
    assert asked == [["7"]]


def test_what_was_made_anew_for_another_is_no_longer_found_with_the_first(server: Server) -> None:
    def owned(uid: str, other: str) -> Callable[[Answer], None]:
        items = [{"metadata": {**pod(name)["metadata"], "owner": uid}} for name in ("a", other)]
        return lambda answer: answer.say(200, {"items": items, "metadata": {"resourceVersion": "7"}})

    seen = threading.Event()
    server.lists, server.watches = [owned("1", "b"), owned("2", "c")], [gone, server.silence]
    informer = Informer(
        server.api,
        "/api/v1/pods",
        lambda obj: seen.set() if obj["metadata"]["name"] == "c" else None,
        lambda obj: str(obj["metadata"]["owner"]),
    )
    informer.start()
    assert seen.wait(10)
    assert informer.indexed("1") == []
    assert [found["metadata"]["name"] for found in informer.indexed("2")] == ["a", "c"]


def test_what_is_alike_is_kept_and_not_told(server: Server) -> None:
    def at(generation: int, version: str) -> dict[str, Any]:
        meta = {"name": "a", "namespace": "team", "resourceVersion": version, "generation": generation}
        return {"metadata": meta}

    def modified(obj: dict[str, Any]) -> Callable[[Answer], None]:
        return lambda answer: answer.say(200, {"type": "MODIFIED", "object": obj})

    told: list[str] = []
    second = threading.Event()

    def take(obj: dict[str, Any]) -> None:
        told.append(obj["metadata"]["resourceVersion"])
        if obj["metadata"]["generation"] == 2:
            second.set()

    def alike(before: dict[str, Any], after: dict[str, Any]) -> bool:
        return bool(before["metadata"]["generation"] == after["metadata"]["generation"])

    first = {"items": [at(1, "7")], "metadata": {"resourceVersion": "7"}}
    server.lists = [lambda answer: answer.say(200, first)]
    server.watches = [modified(at(1, "8")), modified(at(2, "9")), modified(at(2, "10")), server.silence]
    Informer(server.api, "/api/v1/pods", take, alike=alike).start()
    assert second.wait(10)
    assert told == ["7", "9"]


def reconciler(server: Server) -> Reconciler:
    spec = {"model": {"source": "org/m"}, "data": {"train": {"source": "org/d"}}, "storage": {"uri": "s3://r"}}
    found = manifest(**spec)
    found["metadata"] = {"name": "job", "namespace": "team", "uid": "1", "generation": 1}
    jobs, pods, nodes = (Informer(server.api, "", lambda _: None, index) for index in (None, group_of, None))
    jobs.objects["team/job"] = found
    settings = Settings(image="trainer", progress_url="https://operator", ca="CA")
    return Reconciler(server.api, settings, jobs, pods, nodes, Progress(lambda _: None))


def test_any_last_words_of_a_process_make_an_apply_that_can_be_read(server: Server) -> None:
    words = "caf\u00e9 \U0001f917 \x1b[31mred\x7f \x9b \udcff \ufffe\n\tend"
    server.api.apply("/apis/x/status", {"status": {"message": words}})
    read = yaml.safe_load(server.bodies[-1])["status"]["message"]
    assert read == "caf\u00e9 \U0001f917 \x1b[31mred\ufffd \ufffd \ufffd \ufffd\n\tend"


def test_a_pod_of_the_name_that_is_not_the_jobs_is_told_after_a_while(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile_module, "_REFUSED_SECONDS", 0.1)
    server.writes, server.lists = {"POST pods": [409, 409]}, [listing("job-0")]
    one = reconciler(server)
    assert one.reconcile("team/job") == 0.1
    assert said(server)["reason"] == "Starting"
    time.sleep(0.11)  # time itself is what it waits for
    one.reconcile("team/job")
    assert said(server)["reason"] == "PodsRefused"
    assert "kubectl delete pod job-0" in said(server)["message"]


def test_a_pod_of_the_name_that_is_ours_or_goes_is_not_to_be_deleted(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile_module, "_REFUSED_SECONDS", 0.0)

    def there(**meta: Any) -> Callable[[Answer], None]:
        items = [{"metadata": {**pod("job-0")["metadata"], **meta}}]
        return lambda answer: answer.say(200, {"items": items, "metadata": {"resourceVersion": "7"}})

    server.writes = {"POST pods": [409, 409, 409]}
    server.lists = [
        there(ownerReferences=OWNED, labels={JOB_LABEL: "job", INDEX_LABEL: "0"}),
        there(deletionTimestamp="now"),
    ]
    one = reconciler(server)
    assert one.reconcile("team/job") is None, "our own, which the informer does not know yet"
    one.reconcile("team/job")
    one.reconcile("team/job")
    assert "still saving and going" in said(server)["message"]


def test_pod_without_its_labels_is_named_with_the_fix(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile_module, "_REFUSED_SECONDS", 0.0)
    items = [{"metadata": {**pod("job-0")["metadata"], "ownerReferences": OWNED, "labels": {JOB_LABEL: "job"}}}]
    server.writes = {"POST pods": [409, 409]}
    server.lists = [lambda answer: answer.say(200, {"items": items, "metadata": {"resourceVersion": "7"}})]
    one = reconciler(server)
    one.reconcile("team/job")
    one.reconcile("team/job")
    assert (
        said(server)["message"]
        == "the pod job-0 has lost the labels that the operator gave it: kubectl delete pod job-0"
    )


def said(server: Server) -> dict[str, Any]:
    """The status that was written last."""
    status: dict[str, Any] = json.loads([body for body in server.bodies if b'"status"' in body][-1])["status"]
    return status


def test_why_the_api_server_refuses_a_pod_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile_module, "_REFUSED_SECONDS", 0.0)
    monkeypatch.setattr(reconcile_module, "_STATUS_SECONDS", 0.0)
    server.writes = {"POST pods": [403, 403]}
    one = reconciler(server)
    for _ in range(2):
        with pytest.raises(ApiError):
            one.reconcile("team/job")
    assert (said(server)["reason"], said(server)["message"]) == ("PodsRefused", "as scripted")
    one._note_refusal("team/job", "another quota")
    one.reconcile("team/job")
    assert said(server)["message"] == "another quota", "the newest reason, since the first"
    assert one.reconcile("team/job") is None, "it was made"


def test_an_answer_that_is_no_json_is_an_error_like_another(server: Server) -> None:
    def text(answer: Answer) -> None:
        answer.handler.send_response(502)
        answer.handler.send_header("Content-Length", "11")
        answer.handler.end_headers()
        answer.handler.wfile.write(b"bad gateway")

    server.lists = [text]
    with pytest.raises(ApiError) as refused:
        server.api.request("GET", "/api/v1/pods")
    assert (refused.value.status, str(refused.value)) == (502, "no JSON: bad gateway")


def test_only_the_operator_that_leads_takes_reports(server: Server) -> None:
    leads, told = threading.Event(), []
    jobs, pods = (Informer(server.api, "", lambda _: None) for _ in range(2))
    app = ProgressServer(server.api, jobs, pods, Progress(lambda _: None), leads)
    asked = {"PATH_INFO": "/apis/trainyard.dev/v1alpha1/namespaces/a/trainerjobs/b/progress", "REQUEST_METHOD": "POST"}
    for _ in range(2):
        app(asked, lambda status, _: told.append(status))
        leads.set()
    assert told == ["503 Service Unavailable", "413 Content Too Large"]


def test_an_object_that_is_there_already_is_applied(server: Server) -> None:
    server.writes = {"POST secrets": [409]}
    reconciler(server).reconcile("team/job")
    path = "/api/v1/namespaces/team/secrets"
    asked = [each for each in server.written if "secrets" in each[1]]
    assert asked == [("POST", path), ("PATCH", f"{path}/job-1"), ("POST", path)], "Ray's token is never written again"


def test_only_the_status_that_we_wrote_last_is_our_own(server: Server) -> None:
    one = reconciler(server)
    found = one._jobs.objects["team/job"]
    assert not one.wrote(found), "nothing was written yet"
    one.reconcile("team/job")
    status = json.loads(next(body for body in server.bodies if b'"status"' in body))["status"]
    assert one.wrote({**found, "status": status})
    assert not one.wrote({**found, "status": {**status, "state": "Failed"}}), "a leader before us was late"
    again = {**found, "metadata": {**found["metadata"], "uid": "2"}, "status": status}
    assert not one.wrote(again), "a new job of the same name"


@pytest.mark.parametrize("status", [429, 500])
def test_a_pass_that_is_refused_comes_again_and_does_what_is_left(server: Server, status: int) -> None:
    server.writes = {"PATCH status": [status]}
    one, queue = reconciler(server), KeyQueue()
    with pytest.raises(ApiError) as refused:
        one.reconcile("team/job")
    assert refused.value.status == status
    assert not any(path.endswith("/pods") for _, path in server.written), "nothing is done that was not told"
    queue.add("team/job")
    assert queue.take() == "team/job"
    queue.done("team/job", failed=True)
    start = time.monotonic()
    assert queue.take() == "team/job"
    assert time.monotonic() - start >= 0.4, "not at once"
    one.reconcile("team/job")
    assert ("POST", "/api/v1/namespaces/team/pods") in server.written
