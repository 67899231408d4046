"""Which checkpoints a run has, and which one to go on from."""

import json
from dataclasses import dataclass, replace
from typing import Literal

from trainyard import errors
from trainyard.checkpoint.attempts import Attempt, lineage, list_attempts, now
from trainyard.checkpoint.manifest import Manifest
from trainyard.storage import layout
from trainyard.storage.layout import CheckpointId
from trainyard.storage.store import Store

State = Literal["Committed", "Incomplete", "SetAside", "Superseded"]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder and its state.

    Committed: whole, and of the lineage. Incomplete: no manifest (being written, or its writer died).
    SetAside: failed a verification. Superseded: written by an attempt that a later one did not resume from.
    """

    id: CheckpointId
    state: State
    size: int
    reason: str = ""


def list_checkpoints(store: Store, known: list[Attempt] | None = None) -> list[Checkpoint]:
    """Every checkpoint folder of a run, oldest step first; `known`: the attempts whose lineage counts, if not all."""
    sizes: dict[CheckpointId, int] = {}
    names: dict[CheckpointId, set[str]] = {}
    for entry in store.list(layout.CHECKPOINTS):
        folder, _, name = entry.path.removeprefix(f"{layout.CHECKPOINTS}/").partition("/")
        identity = CheckpointId.parse(folder)
        if identity is not None:
            sizes[identity] = sizes.get(identity, 0) + entry.size
            names.setdefault(identity, set()).add(name)
    if (unlisted := _unlisted(store, names)) is not None:
        identity, there = unlisted
        names[identity], sizes[identity] = there, sizes.get(identity, 0)
    valid = lineage(list_attempts(store) if known is None else known)
    found = [Checkpoint(each, _state(each, names[each], valid), sizes[each]) for each in sorted(names)]
    return [replace(each, reason=_why(store, each)) if each.state == "SetAside" else each for each in found]


def committed(checkpoints: list[Checkpoint]) -> list[CheckpointId]:
    """The checkpoints that can be resumed from, newest first."""
    return [each.id for each in reversed(checkpoints) if each.state == "Committed"]


def none_committed(store: Store, checkpoints: list[Checkpoint]) -> str:
    """What to tell of a run that has nothing to go on from."""
    aside = sum(each.state == "SetAside" for each in checkpoints)
    told = f" (set aside: {aside}; `trainyard ckpt ls` tells why)" if aside else ""
    return f"{store.url()} has no committed checkpoint{told}"


def read_manifest(store: Store, identity: CheckpointId) -> Manifest:
    """The manifest of a checkpoint. Raises NotFoundError, ValueError when torn, JobError when of a later format."""
    manifest = manifest_in(store, identity.folder)
    if manifest.id != identity:
        raise ValueError(f"the manifest is of {manifest.id}, not of {identity}")
    return manifest


def manifest_in(store: Store, folder: str) -> Manifest:
    """The manifest in a folder. Raises NotFoundError, ValueError when torn, JobError when of a later format."""
    content = store.get(f"{folder}/{layout.MANIFEST}")
    try:
        return Manifest.from_json(content)
    except errors.JobError as error:
        raise errors.JobError(f"{store.url(folder)}: {error}") from None


def is_there(store: Store, identity: CheckpointId) -> bool:
    """Whether a checkpoint is committed and retention has not taken it."""
    return store.exists(f"{identity.folder}/{layout.MANIFEST}")


def set_aside(store: Store, identity: CheckpointId, reason: str) -> bool:
    """Mark a checkpoint as not to be used; its files stay, for a person to look at. False when it is gone already."""
    if not is_there(store, identity):
        return False
    document = {"reason": reason, "setAsideAt": now()}
    store.put(f"{identity.folder}/{layout.SET_ASIDE}", json.dumps(document, indent=1).encode())
    return True


def newest_attempt(attempts: list[Attempt]) -> int:
    """The number of the newest attempt, 0 when there is none."""
    return attempts[-1].number if attempts else 0


def _unlisted(store: Store, names: dict[CheckpointId, set[str]]) -> tuple[CheckpointId, set[str]] | None:
    """The checkpoint that was committed last and the names of its marks, when a listing does not show it.

    A folder that is mounted on several machines may be listed from a cache; what is asked for by its name is there.
    """
    try:
        identity = CheckpointId.parse(store.get(layout.NEWEST).decode(errors="replace"))
    except errors.NotFoundError:
        return None
    if identity is None or layout.MANIFEST in names.get(identity, ()):
        return None
    marks = (layout.MANIFEST, layout.SET_ASIDE)
    there = {name for name in marks if store.exists(f"{identity.folder}/{name}")}
    return (identity, there) if layout.MANIFEST in there else None


def _state(identity: CheckpointId, names: set[str], valid: dict[int, int | None]) -> State:
    if layout.SET_ASIDE in names:
        return "SetAside"
    if layout.MANIFEST not in names:
        return "Incomplete"
    limit = valid.get(identity.attempt, -1)
    return "Committed" if limit is None or identity.step <= limit else "Superseded"


def _why(store: Store, checkpoint: Checkpoint) -> str:
    try:
        return str(json.loads(store.get(f"{checkpoint.id.folder}/{layout.SET_ASIDE}"))["reason"])
    except (errors.NotFoundError, ValueError, KeyError, TypeError):
        return ""
