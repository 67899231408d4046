"""`manifest.json`, written last: its existence means that the checkpoint is whole."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from trainyard.errors import JobError
from trainyard.storage.layout import CheckpointId

FORMAT = 1
_DIGEST = "sha256"
"""The manifest's own, over the rest of it; every format has it so, and those of the first days have none."""


@dataclass(frozen=True)
class FileEntry:
    """One file of a checkpoint: path below its folder, size in bytes, SHA-256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Parts:
    """What one node has uploaded of a checkpoint; the manifest is made of those of all nodes."""

    node: int
    entries: tuple[FileEntry, ...]
    given_up: str = ""
    """Why this node's part will not come."""

    def to_json(self) -> bytes:
        """The text of parts/<node>.json."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Parts":
        """The parts of a text."""
        document = json.loads(data)
        entries = tuple(FileEntry(**entry) for entry in document["entries"])
        return cls(document["node"], entries, document.get("given_up", ""))


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds, and what has to be known to go on from it."""

    step: int
    attempt: int
    world_size: int
    strategy: str
    global_batch_size: int
    files: tuple[FileEntry, ...]
    metrics: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    goodput: dict[str, float] = field(default_factory=dict)
    """Where the attempt's time had gone, in seconds (train/goodput)."""
    created_at: str = ""
    requested: bool = False
    """Whether somebody asked for this save (`trainyard ckpt save`)."""
    training: str = ""
    """Of a final model: plan.identity.training() of the manifest that it was trained by."""

    @property
    def id(self) -> CheckpointId:
        """The checkpoint's name."""
        return CheckpointId(self.step, self.attempt)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)

    def to_json(self) -> bytes:
        """The text of manifest.json, with a digest of its own.

        Those of the files have the shape of an OpenSSF Model Signing resource list.
        """
        document = asdict(self) | {"format": FORMAT}
        document[_DIGEST] = _digest(document)
        return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Manifest":
        """The manifest of a text; what a later version has added is left out.

        Raises ValueError when it is not one, JobError when it is of a format that this version does not know.
        """
        try:
            document: dict[str, Any] = json.loads(data)
            if _DIGEST in document and document.pop(_DIGEST) != _digest(document):
                raise ValueError("the manifest is not as it was written: its digest is another")
            if document["format"] != FORMAT:  # not corrupt: it must not be set aside
                raise JobError(
                    f"written in format {document['format']}, and this version of trainyard knows {FORMAT}: go on with "
                    "the version that has written it, or a newer one"
                )
            document = _known(cls, document)
            document["files"] = tuple(FileEntry(**_known(FileEntry, entry)) for entry in document["files"])
            if not document["files"]:
                raise ValueError("it names no files")
            return cls(**document)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"not a checkpoint manifest ({error})") from error


def _digest(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _known(kind: type[Manifest] | type[FileEntry], document: dict[str, Any]) -> dict[str, Any]:
    names = {each.name for each in fields(kind)}
    return {name: value for name, value in document.items() if name in names}
