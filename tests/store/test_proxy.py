"""The faulty proxy breaks the way to S3 as it is told to, and mends it again."""

import time
from collections.abc import Callable, Iterator

import obstore
import pytest
from obstore.exceptions import BaseError
from obstore.store import S3Store

from tests.bed.proxy import Fault, FaultyProxy
from tests.bed.s3 import S3Server


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[FaultyProxy]:
    faulty = FaultyProxy(s3.endpoint)
    yield faulty
    faulty.close()


@pytest.fixture
def store(s3: S3Server, proxy: FaultyProxy) -> S3Store:
    through = S3Server(proxy.endpoint, s3.access_key, s3.secret_key)
    return through.store("proxied")


@pytest.mark.parametrize(
    "fault", [Fault(status=503), Fault(reset=True), Fault(hang=True)], ids=["503", "reset", "hang"]
)
def test_a_broken_way_fails_and_a_mended_one_works(store: S3Store, proxy: FaultyProxy, fault: Fault) -> None:
    obstore.put(store, "file", b"before")
    with proxy.fault(fault), pytest.raises(BaseError):
        obstore.get(store, "file")
    assert obstore.get(store, "file").bytes() == b"before"


@pytest.mark.parametrize(
    ("fault", "send"),
    [(Fault(latency=0.3), lambda store: obstore.put(store, "file", b"x")), (Fault(bandwidth=1_000_000), lambda store: obstore.put(store, "file", b"x" * 300_000))],
    ids=["latency", "bandwidth"],
)  # fmt: skip
def test_a_slow_way_takes_its_time(
    store: S3Store, proxy: FaultyProxy, fault: Fault, send: Callable[[S3Store], object]
) -> None:
    with proxy.fault(fault):
        start = time.monotonic()
        send(store)
        assert time.monotonic() - start >= 0.3
