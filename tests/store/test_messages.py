"""What people read when a provider refuses: each of its answers, as obstore hands it on."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store

from trainyard.errors import NotFoundError, StorageError
from trainyard.storage.store import Store, open_store

_S3 = "<?xml version='1.0'?>\n<Error><Code>{code}</Code><Message>{message}</Message><Resource>/b</Resource></Error>"
_AZURE = """<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Error>
  <Code>{code}</Code>
  <Message>{message}
RequestId:d2e27308-0cba-4551-ae8d-23b8881f8c2b
Time:2026-11-30T10:18:59.187Z</Message>
</Error>"""
"""As Azurite answers."""
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The well-known key of Azure's emulators."""
_QUICK: Any = {"max_retries": 0, "retry_timeout": timedelta(seconds=10)}
_CLIENT: Any = {"allow_http": True, "connect_timeout": "5 seconds", "timeout": "5 seconds"}


class Provider:
    """A server that gives every request one answer."""

    def __init__(self) -> None:
        self.status, self.body = 200, ""
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = provider.body.encode()
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(provider.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def store(self, scheme: str) -> Store:
        """A store of the place nothere, at this server."""
        backend: ObjectStore
        if scheme == "s3":
            config: Any = {"endpoint": self.url, "access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}
            backend = S3Store("nothere", config=config, client_options=_CLIENT, retry_config=_QUICK)
        elif scheme == "az":
            config = {"endpoint": f"{self.url}/acc", "account_name": "acc", "account_key": _KEY}
            backend = AzureStore("nothere", config=config, client_options=_CLIENT, retry_config=_QUICK)
        else:
            key = f'{{"gcs_base_url": "{self.url}", "disable_oauth": true, "client_email": "", "private_key": "", "private_key_id": ""}}'
            backend = GCSStore(
                "nothere", config={"service_account_key": key}, client_options=_CLIENT, retry_config=_QUICK
            )
        return Store(f"{scheme}://nothere", scheme, backend, (backend, backend))


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.mark.parametrize(
    ("scheme", "status", "body", "words"),
    [
        ("s3", 404, _S3.format(code="NoSuchBucket", message="The specified bucket does not exist"), "bucket nothere does not exist. Fix: create it"),
        ("az", 404, _AZURE.format(code="ContainerNotFound", message="The specified container does not exist."), "container nothere does not exist. Fix: create it"),
        ("gs", 404, _S3.format(code="NoSuchBucket", message="The specified bucket does not exist."), "bucket nothere does not exist. Fix: create it"),
        ("gs", 404, '{"error": {"code": 404, "message": "The specified bucket does not exist."}}', "bucket nothere does not exist. Fix: create it"),
        ("s3", 403, _S3.format(code="SignatureDoesNotMatch", message="The request signature we calculated does not match"), "access denied. Fix: set AWS_ACCESS_KEY_ID"),
        ("az", 403, _AZURE.format(code="AuthorizationFailure", message="Server failed to authenticate the request."), "access denied. Fix: set AZURE_STORAGE_ACCOUNT_NAME"),
        ("s3", 400, _S3.format(code="AuthorizationHeaderMalformed", message="the region 'us-east-1' is wrong"), "AuthorizationHeaderMalformed: the region 'us-east-1' is wrong. Fix: "),
    ],
    ids=["s3 bucket", "az container", "gs bucket", "gs bucket JSON", "s3 denied", "az denied", "s3 region"],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["read", "write", "list"])
def test_what_a_provider_refuses_is_said_in_our_words(
    provider: Provider, scheme: str, status: int, body: str, words: str, verb: str
) -> None:
    store = provider.store(scheme)
    provider.status, provider.body = status, body
    ask = {"read": lambda: store.get("x"), "write": lambda: store.put("x", b"1"), "list": lambda: store.list("x")}
    with pytest.raises(StorageError) as error:
        ask[verb]()
    message = str(error.value)
    assert message.startswith(f"cannot {verb} {scheme}://nothere/x: {words}")
    assert not set("<>{}\n") & set(message), "no XML, no JSON"
    assert "RequestId" not in message


def test_missing_object_is_not_a_missing_bucket(provider: Provider) -> None:
    provider.status = 404
    provider.body = _S3.format(code="NoSuchKey", message="The specified key does not exist.")
    with pytest.raises(NotFoundError, match="s3://nothere/x: there is no such object"):
        provider.store("s3").get("x")


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without credentials, whose cloud gives it none."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_PROFILE")
    azure = ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_USE_EMULATOR", "AZURE_CLIENT_ID")
    for name in (*names, *azure, "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "acc")
    monkeypatch.setattr("trainyard.storage.store._RETRIES", _QUICK)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("uri", "variable"),
    [
        ("s3://bucket/x", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("az://container/x", "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"),
        ("gs://bucket/x", "GOOGLE_APPLICATION_CREDENTIALS"),
    ],
    ids=["s3", "az", "gs"],
)
def test_without_credentials_it_says_what_to_set(uri: str, variable: str) -> None:
    with pytest.raises(StorageError) as error:
        open_store(uri).get("object")
    assert str(error.value).startswith(f"cannot read {uri}/object: no credentials. Fix: set {variable}")
    assert str(error.value).endswith(")"), "the library's words stand behind"


@pytest.mark.usefixtures("bare")
def test_profile_that_is_not_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "work")
    with pytest.raises(StorageError, match=r"Profiles of ~/\.aws are not read"):
        open_store("s3://bucket").get("object")


@pytest.mark.usefixtures("bare")
def test_azure_without_an_account_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME")
    with pytest.raises(StorageError, match=r"Account must be specified\. Fix: set AZURE_STORAGE_ACCOUNT_NAME"):
        open_store("az://container")
