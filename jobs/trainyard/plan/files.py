"""The files that a data source names on this machine, and how each is written: format, compression, encoding."""

import bz2
import codecs
import glob
import gzip
import io
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from trainyard.errors import JobError
from trainyard.spec.model import Evaluation, Source

FORMATS = {"json": "json", "jsonl": "json", "ndjson": "json", "csv": "csv", "tsv": "csv", "parquet": "parquet"}
"""The format of a file by the ending of its name."""

_COMPRESSED = ("gz", "bz2", "xz", "zst")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks at the beginning of a file; the mark of UTF-32 starts with the mark of UTF-16."""


@dataclass(frozen=True, kw_only=True)
class TextFile:
    """A text file with rows."""

    path: Path
    where: str
    """The field that names it, without spec (`data.train`)."""
    format: str
    """json or csv."""
    delimiter: str = ","
    encoding: str | None = None
    """As the manifest says; None: UTF-8, or what the byte order mark says."""

    @property
    def place(self) -> str:
        """Field and file, for a message."""
        return f"spec.{self.where}: {self.path}"

    def lines(self) -> Iterator[str]:
        """The lines of the file. Raises JobError where the bytes are not of the encoding or the archive is damaged."""
        try:
            with opened(self.path) as raw:
                encoding = self.encoding or _by_mark(raw)
                yield from io.TextIOWrapper(raw, encoding=encoding, newline="")
        except UnicodeDecodeError as error:
            raise JobError(f"{self.place}: {self._undecodable(error)}") from error
        except (EOFError, OSError, lzma.LZMAError) as error:
            raise JobError(f"{self.place} cannot be read: {error or 'it ends too early'}") from error

    def _undecodable(self, error: UnicodeDecodeError) -> str:
        if self.encoding is not None:
            return f"the text is not {self.encoding}; correct {self.where}.encoding"
        with opened(self.path) as raw:
            for number, line in enumerate(raw, 1):
                try:
                    line.decode()
                except UnicodeDecodeError:
                    return f"line {number} is not UTF-8. Write {self.where}.encoding: {_guess(line)}"
        return f"the text is not {error.encoding}"


def matching(source: str) -> list[Path]:
    """The files and folders on this machine that a source names, in order: its own, or those of a pattern.

    A name that exists is a name, even if it has brackets or stars.
    """
    path = Path(source.removeprefix("file://")).expanduser()
    if path.exists():
        return [path]
    if not has_pattern(source) or "://" in source.removeprefix("file://"):
        return []
    matches = [Path(name) for name in glob.glob(str(path), recursive=True)]  # noqa: PTH207 - of any root, with ~
    return sorted(match for match in matches if match.is_file())


def has_pattern(source: str) -> bool:
    """Whether a source has the signs of a pattern: *, ? or brackets."""
    return glob.has_magic(source)


def format_of(path: Path, asked: str | None) -> str | None:
    """The format of a file: json, csv or parquet, as the manifest says or by its ending; None for an unknown one."""
    if asked is not None:
        return asked
    return FORMATS.get(_endings(path)[0])


def text_file(path: Path, source: Source | Evaluation, where: str) -> TextFile | None:
    """A file as text with rows; None for one of another format."""
    kind = format_of(path, source.format)
    if kind not in ("json", "csv"):
        return None
    tabs = _endings(path)[0] == "tsv"
    return TextFile(
        path=path,
        where=where,
        format=kind,
        delimiter=source.delimiter or ("\t" if tabs else ","),
        encoding=source.encoding,
    )


def opened(path: Path) -> IO[bytes] | gzip.GzipFile:
    """The bytes of a file, decompressed by the ending of its name. Raises OSError."""
    ending = _endings(path)[1]
    if ending == "gz":
        return gzip.open(path)
    if ending == "bz2":
        return bz2.open(path)
    if ending == "xz":
        return lzma.open(path)
    if ending == "zst":
        return _zstandard(path)
    return path.open("rb")


def _zstandard(path: Path) -> IO[bytes]:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise OSError("zstandard needs pyarrow: pip install 'trainyard[train]'") from error
    return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))


def _endings(path: Path) -> tuple[str, str]:
    """The ending of a file's format and that of its compression, which may be empty."""
    endings = ["", *path.name.lower().split(".")[1:]]
    compression = endings.pop() if endings[-1] in _COMPRESSED else ""
    return endings[-1], compression


def _by_mark(raw: IO[bytes] | gzip.GzipFile) -> str:
    start = raw.peek(4)[:4] if isinstance(raw, io.BufferedReader) else raw.read(4)
    if not isinstance(raw, io.BufferedReader):
        raw.seek(0)
    return next((encoding for mark, encoding in _MARKS if start.startswith(mark)), "utf-8")


def _guess(line: bytes) -> str:
    """The encoding that a line may be in: Korean Windows' where it gives Hangul, else a list of the usual ones."""
    try:
        text = line.decode("cp949")
    except UnicodeDecodeError:
        text = ""
    if any("가" <= letter <= "힣" for letter in text):
        return "cp949 (it reads as Korean)"
    return "<the encoding of the file>, such as cp949, shift_jis, gb18030 or cp1252"
