"""A checkpoint back on a node: only what its ranks need, from what is still staged there where that is the same."""

from collections.abc import Collection
from pathlib import Path

from trainyard.checkpoint.catalogue import read_manifest
from trainyard.checkpoint.manifest import Manifest
from trainyard.checkpoint.staging import Tickets
from trainyard.checkpoint.transfer import download, needed
from trainyard.storage.layout import CheckpointId
from trainyard.storage.store import Store


def bring(store: Store, tickets: Tickets, identity: CheckpointId, folder: Path, ranks: Collection[int]) -> Manifest:
    """Bring what some ranks need of a checkpoint into a folder, verified.

    Raises CorruptCheckpoint, or ValueError when its manifest is torn.
    """
    manifest, receipt = read_manifest(store, identity), tickets.receipt(identity)
    staged = receipt.sources if receipt is not None else {}
    download(store, manifest, identity.folder, folder, needed(manifest, ranks), staged)
    return manifest
