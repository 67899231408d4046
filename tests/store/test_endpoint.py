"""spec.storage.endpoint holds for every provider, and so does its variable."""

import http.server
import threading
from collections.abc import Iterator

import pytest

from trainyard.errors import StorageError
from trainyard.storage.store import open_store


class Server(http.server.ThreadingHTTPServer):
    """Answers 404 to everything, and keeps what was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.paths: list[str] = []


class Answer(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.server.paths.append(self.path)
        self.send_response(404)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that speaks plain http, and an environment with made-up credentials."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "word", "GOOGLE_SKIP_SIGNATURE": "true",
        "AZURE_STORAGE_ACCOUNT_NAME": "account", "AZURE_STORAGE_ACCOUNT_KEY": "a2V5",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


CASES = [
    ("s3://bucket/prefix", "AWS_ENDPOINT_URL", "", "/bucket/prefix/x"),
    ("gs://bucket/prefix", "GOOGLE_BASE_URL", "", "/bucket/prefix%2Fx"),
    ("az://bucket/prefix", "AZURE_STORAGE_ENDPOINT", "/account", "/account/bucket/prefix/x"),
]


@pytest.mark.parametrize(("uri", "variable", "account", "path"), CASES, ids=["s3", "gs", "az"])
@pytest.mark.parametrize("by", ["field", "variable"])
def test_endpoint_is_asked(
    server: Server, monkeypatch: pytest.MonkeyPatch, uri: str, variable: str, account: str, path: str, by: str
) -> None:
    endpoint = f"http://127.0.0.1:{server.server_port}{account}"
    if by == "variable":
        monkeypatch.setenv(variable, endpoint)
    store = open_store(uri, endpoint if by == "field" else None)
    assert not store.exists("x")
    assert server.paths == [path]


@pytest.mark.parametrize(
    ("uri", "variable"), [(uri, variable) for uri, variable, _, _ in CASES], ids=["s3", "gs", "az"]
)
def test_variable_that_is_no_url_is_told(monkeypatch: pytest.MonkeyPatch, uri: str, variable: str) -> None:
    monkeypatch.setenv(variable, "127.0.0.1:9000")
    with pytest.raises(StorageError, match=variable):
        open_store(uri)
