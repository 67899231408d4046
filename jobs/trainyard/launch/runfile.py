"""run.json: what a run is, written before its first attempt and compared by every later one."""

import json
from typing import Any

from trainyard.errors import JobError, NotFoundError
from trainyard.plan.identity import differences
from trainyard.spec.secrets import masked
from trainyard.storage import layout
from trainyard.storage.store import Store


def write(store: Store, manifest: dict[str, Any], identity: dict[str, Any], notes: dict[str, Any]) -> None:
    """Write run.json: the manifest, the plan with its reasons, and the identity.

    The values of environment variables are masked: who reads the storage need not know them.
    """
    document = {"manifest": masked(manifest), "identity": identity, "plan": notes}
    store.put(layout.RUN, (json.dumps(document, indent=1, default=str) + "\n").encode())


def read(store: Store) -> dict[str, Any] | None:
    """The document of write(), or None when there is no run. Raises JobError when it cannot be read."""
    try:
        document: dict[str, Any] = json.loads(store.get(layout.RUN))
        _ = document["manifest"]["spec"]
    except NotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise JobError(
            f"{store.url(layout.RUN)} is damaged ({error}). Fix: make sure that this job is the one that the run is "
            "of, and delete the file: the run goes on from its newest checkpoint, and the file is written anew"
        ) from error
    return document


def check_same(store: Store, before: dict[str, Any], identity: dict[str, Any], name: str) -> None:
    """Refuse to mix two runs. Raises JobError with what differs."""
    # Through JSON and back: a tuple that was written comes back as a list.
    changed = differences(before.get("identity", {}), json.loads(json.dumps(identity)))
    if changed:
        raise JobError(
            f"{store.url()} holds a run of the same name with another job:\n  "
            + "\n  ".join(changed)
            + f"\nChoose another metadata.name than {name}, another spec.storage.uri, or delete that folder"
        )
