"""One ending, from where the failure is known to where somebody decides by it."""

import json
from pathlib import Path

import pytest

from trainyard.checkpoint import attempts
from trainyard.errors import DiskFullError, JobError, ManifestError, NotFoundError, StorageError, TrainyardError
from trainyard.launch.agent import tell_end
from trainyard.launch.causes import died, first_of
from trainyard.protocol.ending import MESSAGE_BYTES, TERMINATION_BYTES, Cause, Ending, shortened
from trainyard.storage.store import open_store

KOREAN = "라벨이 숫자가 아니라 글자입니다: "
ENDINGS = [
    Ending.complete("s3://bucket/run/final", 500),
    Ending.stopped("stopped when asked; the step is committed", 40),
    Ending.user_error(KOREAN, 3, "train.py:7"),
    Ending.fault(Cause.NETWORK, "a server cannot be reached", 0, "hub.py:1"),
]


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.outcome)
def test_decode_returns_what_was_encoded(ending: Ending) -> None:
    assert Ending.decode(ending.encode()) == ending
    assert Ending.of_document(ending.document()) == ending


@pytest.mark.parametrize(
    "line",
    [
        b'{"outcome": "Infrastructure", "message": "killed", "step": 7, "ended_at": "2026-01-01T00:00:00Z"}',
        b'{"outcome": "Infrastructure", "message": "killed", "step": 7, "cause": "Sunspots", "colour": "blue"}',
    ],
    ids=["of an older version", "of a later version"],
)
def test_endings_of_other_versions_are_read(line: bytes) -> None:
    assert Ending.decode(line) == Ending(outcome="Infrastructure", message="killed", step=7)


@pytest.mark.parametrize("line", [b"", b"[]", b"3", b'{"message": "x"}', b"Killed"])
def test_other_text_is_no_ending(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Ending.decode(line)


@pytest.mark.parametrize(
    "text",
    [KOREAN * 300, "x" * 70_000, '\x1b[31m"\\' * 9000, "\ud800" * 2000],
    ids=["korean", "ascii", "escapes", "half"],
)
def test_termination_message_fits_and_is_valid_json(tmp_path: Path, text: str) -> None:
    tell_end(tmp_path / "log", Ending.user_error(f"first {text} last", 12, f"train.py:7 {text}"))
    written = (tmp_path / "log").read_bytes()
    assert len(written) <= TERMINATION_BYTES
    document = json.loads(written)
    assert (document["outcome"], document["step"]) == ("UserError", 12)
    assert document["message"].startswith("first ")
    assert document["message"].endswith(" last")


def test_korean_words_keep_a_kilobyte_of_letters(tmp_path: Path) -> None:
    tell_end(tmp_path / "log", Ending.user_error(KOREAN * 300))
    assert len(json.loads((tmp_path / "log").read_bytes())["message"]) > 1000


def test_long_message_is_bounded_wherever_it_goes() -> None:
    ending = Ending.user_error("x" * 70_000)
    assert len(ending.message.encode()) <= MESSAGE_BYTES
    assert shortened("가" * 10, 12).encode().decode() == shortened("가" * 10, 12)


@pytest.mark.parametrize(
    ("error", "outcome", "cause"),
    [
        (JobError("bad data"), "UserError", Cause.JOB),
        (ManifestError("bad manifest"), "UserError", Cause.JOB),
        (NotFoundError("no checkpoint"), "UserError", Cause.JOB),
        (StorageError("bucket away"), "Infrastructure", Cause.STORAGE),
        (DiskFullError("disk full"), "Infrastructure", Cause.DISK),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, TrainyardError) else None,
)
def test_our_errors_have_their_cause(error: TrainyardError, outcome: str, cause: Cause) -> None:
    ending = Ending.of(error)
    assert (ending.outcome, ending.cause, ending.message) == (outcome, cause, str(error))


@pytest.mark.parametrize(
    ("cause", "host_failed", "excused"),
    [
        (Cause.CODE, False, False),
        (Cause.SIGNAL, False, False),
        (Cause.DISK, True, False),
        (Cause.WORKER, True, False),
        (Cause.NODE, True, True),
        (Cause.ASKED, True, True),
    ],
)
def test_cause_says_who_is_not_to_blame(cause: Cause, host_failed: bool, excused: bool) -> None:
    ending = Ending.fault(cause, "")
    assert (ending.host_failed, ending.excused) == (host_failed, excused)


def test_end_of_an_attempt_is_kept_whole(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    attempts.end(store, 3, ENDINGS[2])
    assert attempts.read_end(store, 3) == ENDINGS[2]
    assert json.loads(store.get("attempts/00003-end.json"))["ended_at"].endswith("Z")


@pytest.mark.parametrize(
    ("causes", "first"),
    [
        ([Cause.PEER, Cause.SIGNAL], Cause.SIGNAL),
        ([Cause.PEER, Cause.CODE, Cause.SIGNAL], Cause.CODE),
        ([Cause.RENDEZVOUS, Cause.JOB], Cause.JOB),
        ([Cause.PEER, Cause.RENDEZVOUS, Cause.NETWORK], Cause.NETWORK),
        ([Cause.PEER, Cause.PEER], Cause.PEER),
        ([Cause.PEER, Cause.ASKED, Cause.SIGNAL], Cause.SIGNAL),
    ],
)
def test_rank_that_waited_is_not_the_cause(causes: list[Cause], first: Cause) -> None:
    assert first_of([Ending.fault(cause, str(cause)) for cause in causes]).cause is first


@pytest.mark.parametrize(
    ("status", "cause", "words"),
    [
        (-15, Cause.ASKED, "terminated (SIGTERM)"),
        (-9, Cause.SIGNAL, "killed (SIGKILL; out of memory?)"),
        (-11, Cause.SIGNAL, "died of SIGSEGV"),
        (1, Cause.SIGNAL, "ended with status 1; its last line: Bus error"),
    ],
)
def test_death_without_words_is_named(tmp_path: Path, status: int, cause: Cause, words: str) -> None:
    (tmp_path / "log").write_text("loading\nBus error\n")
    ending = died(status, tmp_path / "log")
    assert (ending.outcome, ending.cause) == ("Infrastructure", cause)
    assert words in ending.message
