"""kubectl against the cluster that KUBECONFIG names, or the bed's own."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.bed.pki import FOLDER
from trainyard_operator.api import Api

KUBECTL = Path(sys.executable).parent / "kubectl"


def kubeconfig() -> Path:
    """The file that says where the cluster is."""
    return Path(os.environ.get("KUBECONFIG") or FOLDER / "admin.kubeconfig")


def kubectl(*arguments: str, stdin: str | None = None, timeout: float = 60) -> str:
    """What kubectl prints. Raises CalledProcessError, with its words as a note, when it fails."""
    done = subprocess.run(
        [str(KUBECTL), f"--kubeconfig={kubeconfig()}", *arguments],
        input=stdin, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    if done.returncode:
        error = subprocess.CalledProcessError(done.returncode, ["kubectl", *arguments], done.stdout, done.stderr)
        error.add_note(done.stderr[-2000:])
        raise error
    return done.stdout


def apply(*objects: dict[str, Any]) -> None:
    """Server-side apply of objects."""
    document = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(document))


@functools.cache
def _api(config: Path) -> Api:
    return Api.connect(str(config))


def read(path: str) -> Any:
    """What the API server has at a path. Who asks again and again asks so: a kubectl each time costs a tenth of a second."""
    return _api(kubeconfig()).request("GET", path)


def get(*arguments: str) -> Any:
    """An object, or a list of them, as kubectl's JSON."""
    return json.loads(kubectl("get", "-o", "json", *arguments))
