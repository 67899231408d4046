"""What a manifest names on this machine, brought to where pods can see it: the job's storage, by its content."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pathspec

from trainyard.errors import ManifestError
from trainyard.plan.files import has_pattern
from trainyard.plan.fingerprint import fingerprint
from trainyard.plan.inputs import is_local
from trainyard.plan.sources import named
from trainyard.spec.manifest import as_manifest
from trainyard.spec.model import TrainerJob
from trainyard.storage.store import Store, open_store

_INPUTS = "inputs"
_MAX_CODE_BYTES = 100 * 1024 * 1024
_NEVER_CODE = (".git/", ".venv/", "__pycache__/", "*.pyc", ".ipynb_checkpoints/")
_DIGEST_CHARACTERS = 16


@dataclass(frozen=True)
class Upload:
    """A local source, and what of it goes up."""

    where: tuple[str, ...]
    """Its path in the manifest."""
    source: Path
    files: tuple[Path, ...]
    """Relative to the source; empty for a single file."""

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum((self.source / file).stat().st_size for file in self.files) or self.source.stat().st_size


def needed(job: TrainerJob) -> list[Upload]:
    """What of the manifest lies on this machine. Raises ManifestError for what cannot be uploaded."""
    found = []
    for where, source in named(job.spec).items():
        path = Path(source).expanduser()
        if not is_local(source) or (path.is_absolute() and not path.exists()):  # a path in the image or on a volume
            continue
        name = ".".join(where)
        if has_pattern(source) and not path.exists():
            raise ManifestError(f"{name}: a pattern cannot be uploaded; name the folder, or one file")
        if not path.exists():
            raise ManifestError(f"{name}: {source}: no such file or folder")
        files = tuple(_files(path, code=where[-1] == "code")) if path.is_dir() else ()
        upload = Upload(where, path, files)
        if where[-1] == "code" and upload.size > _MAX_CODE_BYTES:
            raise ManifestError(
                f"{name}: {source} holds {upload.size / 1e6:.0f} MB, and code is at most "
                f"{_MAX_CODE_BYTES / 1e6:.0f} MB. Name what is no code in a .gitignore there"
            )
        found.append(upload)
    return found


def placed(job: TrainerJob, namespace: str) -> dict[str, Any]:
    """The manifest with URIs in place of local sources, as upload() makes them. Raises ManifestError."""
    manifest = as_manifest(job)
    manifest["metadata"]["namespace"] = namespace
    for each in needed(job):
        _replace(manifest, each.where, f"{_root(job, namespace)}/{_folder(each)}")
    return manifest


def upload(job: TrainerJob, namespace: str, tell: Callable[[str], None]) -> None:
    """Bring the local sources of a manifest to where placed() says that they are. Raises StorageError."""
    storage = job.spec.storage
    for each in needed(job):
        store, folder = open_store(_root(job, namespace), storage.endpoint, storage.region), _folder(each)
        told = f"{'.'.join(each.where[1:])}: {each.source} ({each.size / 1e6:.1f} MB)"
        missing = list(_missing(store, folder, each))
        tell(f"{told}: {'uploading' if missing else 'there already'}")
        for path, file in missing:
            store.put_file(path, file)


def _root(job: TrainerJob, namespace: str) -> str:
    return f"{job.spec.storage.uri.rstrip('/')}/{namespace}/{_INPUTS}"


def _folder(each: Upload) -> str:
    return f"{_digest(each)}/{each.source.resolve().name}"


def _files(folder: Path, code: bool) -> Iterator[Path]:
    ignore = folder / ".gitignore"
    lines = [*_NEVER_CODE, *(ignore.read_text(encoding="utf-8").splitlines() if ignore.is_file() else [])]
    spec = pathspec.GitIgnoreSpec.from_lines(lines if code else [])
    for file in sorted(folder.rglob("*")):
        relative = file.relative_to(folder)
        if file.is_file() and not spec.match_file(str(relative)):
            yield relative


def _digest(each: Upload) -> str:
    if not each.files:
        return fingerprint(each.source)[:_DIGEST_CHARACTERS]
    sha256 = hashlib.sha256()
    for file in each.files:
        sha256.update(f"{file}\0{fingerprint(each.source / file)}\0".encode())
    return sha256.hexdigest()[:_DIGEST_CHARACTERS]


def _missing(store: Store, folder: str, each: Upload) -> Iterator[tuple[str, Path]]:
    """What is not there yet, as (path, file): an upload that was cut off is completed."""
    there = {entry.path: entry.size for entry in store.list(folder.partition("/")[0])}
    wanted = {f"{folder}/{file}": each.source / file for file in each.files} or {folder: each.source}
    for path, file in wanted.items():
        if there.get(path) != file.stat().st_size:
            yield path, file


def _replace(manifest: dict[str, Any], where: tuple[str, ...], value: str) -> None:
    target = manifest
    for key in where[:-1]:
        target = target[key]
    target[where[-1]] = value
