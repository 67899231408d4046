"""What failed, by real exceptions: of the libraries that ask servers, against a server that has trouble."""

import errno
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import httpx2
import pytest
import requests
import torch
import transformers
from huggingface_hub import constants, hf_hub_download

from tests.unit.jobs import job
from trainyard.errors import JobError, StorageError
from trainyard.plan.labels import Labels
from trainyard.protocol.ending import Cause
from trainyard.spec.manifest import as_manifest
from trainyard.train import mend, model, processor
from trainyard.train.choices import Choices
from trainyard.train.failures import cause_of, ending_of, words_of
from trainyard.train.tasks import TABLE
from trainyard.train.work import Work


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], str]]:
    """Makes this process ask a hub that answers everything with a status; -1: a hub where nobody listens."""
    servers: list[http.server.ThreadingHTTPServer] = []
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the hub's client tries for 23 seconds by itself

    def answer(status: int) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                if status in (401, 404):
                    self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        url = f"http://127.0.0.1:{server.server_port}"
        if status < 0:
            server.server_close()
        else:
            servers.append(server)
            threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        return url

    yield answer
    for server in servers:
        server.shutdown()
        server.server_close()


def loads_config(folder: Path) -> None:
    transformers.AutoConfig.from_pretrained("someone/model", cache_dir=str(folder))


def downloads_file(folder: Path) -> None:
    hf_hub_download("someone/model", "config.json", cache_dir=folder)


@pytest.mark.parametrize("ask", [loads_config, downloads_file])
@pytest.mark.parametrize(
    ("status", "cause"),
    [(-1, Cause.NETWORK), (429, Cause.NETWORK), (500, Cause.NETWORK), (503, Cause.NETWORK), (404, Cause.JOB)],
    ids=["away", "too many requests", "in error", "unavailable", "no such model"],
)
def test_hub_that_has_trouble_is_not_the_job(
    tmp_path: Path, hub: Callable[[int], str], ask: Callable[[Path], None], status: int, cause: Cause
) -> None:
    hub(status)
    with pytest.raises(Exception) as raised:  # noqa: PT011 - of each library its own
        ask(tmp_path)
    assert cause_of(raised.value) is cause, repr(raised.value)


def loads_rows(folder: Path) -> None:
    datasets.load_dataset("someone/rows", cache_dir=str(folder))


@pytest.mark.parametrize(
    ("status", "cause"), [(-1, Cause.NETWORK), (503, Cause.NETWORK), (404, Cause.JOB)], ids=["away", "503", "404"]
)
def test_data_set_of_a_hub_that_has_trouble(
    tmp_path: Path, hub: Callable[[int], str], monkeypatch: pytest.MonkeyPatch, status: int, cause: Cause
) -> None:
    url = hub(status)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", url)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    with pytest.raises(Exception) as raised:  # noqa: PT011 - of each library its own
        loads_rows(tmp_path)
    assert cause_of(raised.value) is cause, repr(raised.value)


@pytest.mark.parametrize("ask", [loads_config, downloads_file])
def test_hub_that_the_user_turned_off_is_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Exception) as raised:  # noqa: PT011 - of each library its own
        ask(tmp_path)
    assert cause_of(raised.value) in (Cause.JOB, Cause.CODE), repr(raised.value)


@pytest.mark.parametrize("get", [httpx2.get, requests.get])
@pytest.mark.parametrize(
    ("status", "cause"), [(-1, Cause.NETWORK), (503, Cause.NETWORK), (429, Cause.NETWORK), (403, Cause.JOB)]
)
def test_server_that_user_code_asks_is_not_the_job(
    hub: Callable[[int], str], get: Callable[[str], Any], status: int, cause: Cause
) -> None:
    url = hub(status)
    with pytest.raises(Exception) as raised:  # noqa: PT011 - of each library its own
        get(url).raise_for_status()
    assert cause_of(raised.value) is cause


@pytest.mark.parametrize(
    ("status", "outcome", "cause"),
    [(-1, "Infrastructure", Cause.NETWORK), (503, "Infrastructure", Cause.NETWORK), (404, "UserError", Cause.JOB)],
    ids=["away", "unavailable", "no such model"],
)
@pytest.mark.parametrize("part", ["config", "processor"])
def test_model_that_cannot_be_fetched_is_tried_again(
    hub: Callable[[int], str], part: str, status: int, outcome: str, cause: Cause
) -> None:
    hub(status)
    spec = job(model={"source": "someone/model"}).spec

    def load() -> None:
        if part == "config":
            model.load_config(spec, Labels(), None)
        else:
            processor.load(spec, TABLE[spec.task], Choices())

    error = caught(load)
    ending = ending_of(error, 0, work())
    assert (ending.outcome, ending.cause) == (outcome, cause), repr(error)
    assert "someone/model" in ending.message


def caught(raise_it: Callable[[], object]) -> Exception:
    try:
        raise_it()
    except Exception as error:  # noqa: BLE001 - whatever it is
        return error
    raise AssertionError("nothing was raised")


def wrapped() -> None:
    try:
        socket.getaddrinfo("nowhere.invalid", 443)
    except OSError as error:
        raise RuntimeError("cannot build the data set") from error


@pytest.mark.parametrize(
    ("raise_it", "cause"),
    [
        (lambda: socket.getaddrinfo("nowhere.invalid", 443), Cause.NETWORK),
        (wrapped, Cause.NETWORK),
        (lambda: socket.create_connection(("127.0.0.1", 9), timeout=5), Cause.NETWORK),
        (lambda: (_ for _ in ()).throw(OSError(errno.EADDRINUSE, "Address already in use")), Cause.RENDEZVOUS),
        (lambda: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")), Cause.DISK),
        (lambda: (_ for _ in ()).throw(StorageError("bucket away")), Cause.STORAGE),
        (lambda: (_ for _ in ()).throw(JobError("label")), Cause.JOB),
        (lambda: {}["text"], Cause.CODE),
        (lambda: int("NCCL, gloo: Timed out waiting, Broken pipe"), Cause.CODE),
        (lambda: torch.ones(2) @ torch.ones(3), Cause.CODE),
        (lambda: Path("/nowhere/rows.jsonl").read_text(), Cause.CODE),
        (lambda: torch.nn.Embedding(2, 2)(torch.tensor([7])), Cause.CODE),
    ],
    ids=["DNS", "DNS, wrapped", "refused", "port", "disk", "store", "ours", "key", "words", "shapes", "file", "index"],
)
def test_type_of_an_exception_tells_what_failed(raise_it: Callable[[], object], cause: Cause) -> None:
    assert cause_of(caught(raise_it)) is cause


def work(**changes: Any) -> Work:
    document = as_manifest(job())
    first = {"manifest": document, "arguments": {}, "run_uri": "/run", "attempt": 1, "staging": "/tmp", "keep_last": 3}
    return Work(**{**first, "strategy": "ddp", **changes})


@pytest.mark.parametrize(
    ("error", "step", "changes", "outcome"),
    [
        (KeyError("text"), 0, {}, "UserError"),
        (KeyError("text"), 5000, {}, "Infrastructure"),
        (KeyError("text"), 0, {"attempt": 2, "resumed_id": "00005000-00001"}, "Infrastructure"),
        (httpx2.ConnectError("refused"), 0, {}, "Infrastructure"),
        (httpx2.ConnectError("refused"), 0, {"attempt": 2, "resumed_id": "00005000-00001"}, "Infrastructure"),
        (JobError("diverged"), 5000, {}, "UserError"),
    ],
    ids=["code before steps", "code after steps", "code of a late attempt", "hub", "hub of a late attempt", "known"],
)
def test_only_the_jobs_own_failure_is_final(error: Exception, step: int, changes: dict[str, Any], outcome: str) -> None:
    ending = ending_of(error, step, work(**changes))
    assert ending.outcome == outcome
    if changes:
        assert ending.step == 5000, "what is committed was done"


def test_failure_while_a_checkpoint_is_loaded_names_it() -> None:
    def load(trainer: object, folder: str) -> None:
        raise KeyError("embeddings.weight")

    error = caught(lambda: mend._noted(load, None, "/restored/checkpoint-10"))
    given = work(resume_folder="/restored/checkpoint-10", attempt=2, resumed_id="00000010-00001")
    assert ending_of(error, 0, given).message == "00000010-00001 cannot be loaded: KeyError: 'embeddings.weight'"


LOADER = """Could not load libtorchcodec. Likely causes:
    1. FFmpeg is not installed.

[start of libtorchcodec loading traceback]
[end of libtorchcodec loading traceback]."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            RuntimeError(LOADER),
            "RuntimeError: Could not load libtorchcodec. Likely causes: … [end of libtorchcodec loading traceback].",
        ),
        (KeyError("text"), "KeyError: 'text'"),
        (ValueError(), "ValueError"),
        (ValueError("\n\n one \n\n"), "ValueError: … one"),
        (ValueError("one\n\n"), "ValueError: one"),
    ],
    ids=["several lines", "one line", "no words", "empty lines", "ends with empty lines"],
)
def test_message_has_first_and_last_line(error: Exception, words: str) -> None:
    error.add_note("a note")
    assert words_of(error) == words


def test_syntax_error_says_what_and_where(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("x = (\n")
    error = caught(lambda: compile((tmp_path / "train.py").read_text(), "train.py", "exec"))
    assert words_of(error) == "SyntaxError: '(' was never closed (File \"train.py\", line 1)"
