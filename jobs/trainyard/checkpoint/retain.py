"""Which checkpoints are kept, and how the others are deleted."""

import math
import shutil
from collections.abc import Iterable
from dataclasses import dataclass

from trainyard import errors
from trainyard.checkpoint.attempts import list_attempts, series
from trainyard.checkpoint.catalogue import Checkpoint, is_there, list_checkpoints, newest_attempt, read_manifest
from trainyard.checkpoint.manifest import Manifest
from trainyard.storage import layout
from trainyard.storage.layout import CheckpointId
from trainyard.storage.store import Store


@dataclass(frozen=True)
class Retention:
    """Which checkpoints are kept: the newest, the best by a metric, and those at multiples of a number of steps."""

    keep_last: int
    keep_best: int
    metric: str | None
    greater_is_better: bool
    keep_every: int | None = None


def expired(manifests: list[Manifest], keep: Retention, in_use: Iterable[CheckpointId] = ()) -> list[CheckpointId]:
    """The checkpoints to delete, oldest first. Those in use are kept; of equally good ones the older is the best."""
    newest_first = sorted(manifests, key=lambda manifest: manifest.id, reverse=True)
    kept = {manifest.id for manifest in newest_first[: keep.keep_last]} | set(in_use)
    if keep.keep_every is not None:
        kept |= {manifest.id for manifest in manifests if manifest.step % keep.keep_every == 0}
    metric = keep.metric
    if metric:
        sign = -1.0 if keep.greater_is_better else 1.0
        rated = [manifest for manifest in manifests if math.isfinite(manifest.metrics.get(metric, math.nan))]
        rated.sort(key=lambda manifest: (sign * manifest.metrics[metric], manifest.id))
        kept |= {manifest.id for manifest in rated[: keep.keep_best]}
    return sorted(manifest.id for manifest in manifests if manifest.id not in kept)


def retain(store: Store, keep: Retention, in_use: Iterable[CheckpointId] = ()) -> list[CheckpointId]:
    """Delete what need not be kept, and what dead attempts left behind. Returns what was deleted.

    A listing may be late. What it shows of attempts decides what is a leftover, so nothing is deleted by one that does
    not show an attempt whose checkpoint is in use.
    """
    attempts, checkpoints, used = list_attempts(store), list_checkpoints(store), set(in_use)
    listed = newest_attempt(attempts)
    if any(identity.attempt > listed for identity in used):
        return []
    manifests = []
    for checkpoint in checkpoints:
        if checkpoint.state == "Committed":
            try:
                manifests.append(read_manifest(store, checkpoint.id))
            except (errors.NotFoundError, errors.JobError, ValueError):
                continue
    first = series(attempts)
    newest = max((manifest.attempt for manifest in manifests), default=0)

    def is_leftover(each: Checkpoint) -> bool:
        if each.id in used or not first <= each.id.attempt <= listed:
            return False
        # An incomplete folder of the newest attempt may be a save in progress; of an older one it is a leftover.
        dead = each.state == "Incomplete" and each.id.attempt < newest
        return each.state == "Superseded" or (dead and not is_there(store, each.id))

    doomed = [*(each.id for each in checkpoints if is_leftover(each)), *expired(manifests, keep, used)]
    for identity in doomed:
        remove(store, identity)
    return doomed


def remove(store: Store, identity: CheckpointId) -> None:
    """Delete a checkpoint, its manifest first: a half-deleted one is never taken for whole."""
    store.delete([f"{identity.folder}/{layout.MANIFEST}"])
    store.delete([entry.path for entry in store.list(identity.folder)])
    folder = store.local_path(identity.folder)
    if folder is not None:
        # Empty folders, and what an upload that was killed has left under a name that no listing shows.
        shutil.rmtree(folder, ignore_errors=True)
