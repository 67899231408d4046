"""What the tests of the operator's pure parts share."""

from datetime import UTC, datetime
from typing import Any

from tests.conftest import manifest
from trainyard.spec.manifest import validate
from trainyard.spec.model import TrainerJob
from trainyard_operator.identity import Owner
from trainyard_operator.render import Settings

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OWNER = Owner("team", "job", "uid-1")
SETTINGS = Settings(image="trainer:1", progress_url="https://operator:8443", ca="CA")


SPEC: dict[str, Any] = {
    "model": {"source": "s3://m/bert"},
    "data": {"train": {"source": "s3://m/d.jsonl"}},
    "storage": {"uri": "s3://runs", "secret": "s3"},
    "workers": {"count": 2},
}


def job(**changes: Any) -> TrainerJob:
    """A job of two workers, with parts of its spec replaced."""
    made, problems = validate(manifest(**{**SPEC, **changes}))
    assert made is not None, problems
    return made
