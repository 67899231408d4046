"""The logs of training processes, in the log of their pod."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainyard.launch.logs import LINE_BYTES, RankTail, Tee


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "attempt-00001").mkdir()
    return tmp_path / "attempt-00001/rank-0.log"


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def tail(tmp_path: Path, out: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> Iterator[RankTail]:
    monkeypatch.setattr("trainyard.launch.logs._TAIL_SECONDS", 3600)  # it looks when a test says so
    made = RankTail(tmp_path, out)
    yield made
    made._done.set()


def test_line_without_newline_is_cut_and_followed(tail: RankTail, log: Path, out: io.StringIO) -> None:
    log.write_bytes(b"before\n" + b"x" * 3_000_000)
    tail.look()
    with log.open("ab") as stream:
        stream.write(b"y\nafter\n")
    tail.look()
    lines = out.getvalue().splitlines()
    assert (lines[0], lines[-1]) == ("[rank 0] before", "[rank 0] after")
    assert max(len(line) for line in lines) <= LINE_BYTES + len("[rank 0] ")
    assert "".join(line.removeprefix("[rank 0] ") for line in lines[1:-1]) == "x" * 3_000_000 + "y"


def test_characters_are_cut_whole(tail: RankTail, log: Path, out: io.StringIO) -> None:
    text = "학습" * 10_000
    log.write_text(text, encoding="utf-8")
    tail.close()
    assert "".join(line.removeprefix("[rank 0] ") for line in out.getvalue().splitlines()) == text


def test_progress_bar_shows_its_last_state(tail: RankTail, log: Path, out: io.StringIO) -> None:
    states = [f"{step:5d}/20000 [{'#' * (step // 1000):<20}]" for step in range(20_001)]
    with log.open("wb") as stream:
        stream.write("\r".join(states[:15_000]).encode())
        stream.flush()
        tail.look()
        shown = [line.removeprefix("[rank 0] ") for line in out.getvalue().splitlines()]
        assert 20 < len(shown) < 100
        assert set(shown) <= set(states)
        stream.write(("\r" + "\r".join(states[15_000:]) + "\r\ndone\r\n").encode())
    tail.look()
    assert out.getvalue().splitlines()[-2:] == [f"[rank 0] {states[-1]}", "[rank 0] done"]


def test_end_without_newline_is_written(tail: RankTail, log: Path, out: io.StringIO) -> None:
    log.write_bytes(b"a" * 2_500_000 + b"\nTraceback: the last words")
    tail.close()
    assert out.getvalue().endswith("[rank 0] Traceback: the last words\n")


def test_end_of_a_removed_log_is_written(tail: RankTail, log: Path, out: io.StringIO) -> None:
    log.write_text("one\n")
    tail.look()
    with log.open("a") as stream:
        stream.write("two\nthree")
    log.unlink()
    tail.look()
    tail.look()
    assert out.getvalue() == "[rank 0] one\n[rank 0] two\n[rank 0] three\n"


def test_tee_takes_every_character(tmp_path: Path) -> None:
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Tee(narrow, tmp_path / "log").write("2 × \ud800\n")
    assert (tmp_path / "log").read_text() == "2 × \\ud800\n"
