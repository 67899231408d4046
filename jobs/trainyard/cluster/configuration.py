"""What kubectl is set up with, looked at when it fails: its own words do not say what was set and where."""

import json
import os
import subprocess
from pathlib import Path

_IN_A_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_SECONDS = 10.0


def fault(program: str, context: str | None) -> str | None:
    """What is wrong with the configuration of a kubectl, with the fix; None when it has one that knows the context."""
    named, files = _files()
    if not any(file.exists() for file in files):
        if _IN_A_POD.exists():
            return None
        names = ", ".join(str(file) for file in files)
        where = f"KUBECONFIG names {names}, and nothing is there" if named else f"{names} is not there"
        return f"kubectl has no configuration: {where}. Fix: point KUBECONFIG at the cluster's configuration"
    contexts, current = _contexts(program)
    if contexts is None:
        return None  # it cannot be read, and kubectl says why and of which file
    there = ", ".join(contexts) or "none"
    where = ", ".join(str(file) for file in files if file.exists())
    if context is not None and context not in contexts:
        return f"--context {context}: {where} has no such context; there are: {there}"
    if context is None and not current:
        return f"{where} has no current context; there are: {there}. Fix: --context, or kubectl config use-context"
    if context is None and current not in contexts:
        return f"the current context {current} is not in {where}; there are: {there}. Fix: --context"
    return None


def server(program: str, context: str | None) -> str:
    """The address of the API server and the context it comes from, in words."""
    path = "jsonpath={.current-context} {.clusters[0].cluster.server}"
    where = [f"--context={context}"] if context else []
    text = _config_view(program, "--minify", f"--output={path}", *where)
    name, _, address = text.partition(" ")
    return f"{address.strip()} (context {context or name})" if address.strip() else "the API server"


def _files() -> tuple[bool, list[Path]]:
    """Whether KUBECONFIG is set, and where kubectl looks."""
    named = os.environ.get("KUBECONFIG", "")
    paths = [Path(part) for part in named.split(os.pathsep) if part]
    return bool(paths), paths or [Path("~/.kube/config").expanduser()]


def _contexts(program: str) -> tuple[list[str] | None, str]:
    """The names of the contexts and the current one; None when the configuration cannot be read."""
    try:
        document = json.loads(_config_view(program, "--output=json"))
        return [each["name"] for each in document.get("contexts") or []], document.get("current-context") or ""
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, ""


def _config_view(program: str, *arguments: str) -> str:
    command = [program, "config", "view", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS).stdout
    except subprocess.TimeoutExpired:
        return ""
