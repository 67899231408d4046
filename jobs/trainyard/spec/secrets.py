"""Credentials in a manifest: found before anybody else reads them, and masked in what leaves the cluster."""

import copy
import re
from collections.abc import Iterator
from typing import Any

from trainyard.spec.yamltext import Path, Problem

MASK = "(not shown)"
"""What stands for the value of an environment variable in files that are made to be shared."""

_KEY = re.compile(
    r"((^|_|\b)(token|secret|credentials?|auth|pat|sas)|password|passwd|passphrase|pwd|api_?key|"
    r"secret_?(access_?)?key|private_?key|access_?key(_?id)?|account_?key|connection_?string|(sas|auth|access)_?token)$",
    re.IGNORECASE,
)
_VALUE = re.compile(r"\b(hf_[A-Za-z0-9]{30,}|AKIA[0-9A-Z]{16}|ghp_[A-Za-z0-9]{36}|sk-[A-Za-z0-9_-]{20,})")
_URI = re.compile(r"^[a-z0-9+]+://[^/@\s]*:[^/@\s]+@")
_NAMES_OF_SECRETS = {("spec", "storage", "secret")}
_MODEL_WORDS = (
    ("spec", "processor", "call"),
    ("spec", "processor", "load"),
    ("spec", "model", "config"),
    ("spec", "model", "load"),
)
_MODEL_TOKEN = re.compile(
    r"^(?!(hub|hf|auth|use_auth|api|access|secret|bearer|refresh)_token$)\w+_token$", re.IGNORECASE
)
"""Special tokens of a tokenizer, such as pad_token: no credentials."""

_FROM_ENVIRONMENT = (
    "Remove it: credentials come from the environment, or on a cluster from the Secret that spec.storage.secret names"
)
_BY_REFERENCE = (
    "Write in spec.workers.template, under the container's env: "
    "{name: NAME, valueFrom: {secretKeyRef: {name: my-secret, key: NAME}}}; `trainyard run` takes it from your "
    "environment"
)


def literal_secrets(value: Any, path: Path = ()) -> Iterator[Problem]:
    """Every text of a manifest that is a credential by its key, its variable's name, or its form."""
    if isinstance(value, dict):
        variable = value.get("name") if "value" in value and _in_template(path) else None
        for key, child in value.items():
            if key == "value" and isinstance(variable, str) and child and _KEY.search(variable):
                yield _problem((*path, key), _BY_REFERENCE.replace("NAME", variable))
            else:
                yield from literal_secrets(child, (*path, key))
    elif isinstance(value, list):
        if path == ("spec", "script", "args"):
            yield from _secret_options(value, path)
        for index, child in enumerate(value):
            yield from literal_secrets(child, (*path, index))
    elif isinstance(value, str) and value and path not in _NAMES_OF_SECRETS and _is_secret(path, value):
        in_environment = path[:3] == ("spec", "script", "env")
        fix = _BY_REFERENCE.replace("NAME", str(path[-1])) if in_environment else _FROM_ENVIRONMENT
        yield _problem(path, fix)


def masked(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest without the values of environment variables: for run.json, the model card and the report."""
    shown = copy.deepcopy(manifest)
    spec = shown.get("spec", {})
    script = spec.get("script") or {}
    if script.get("env"):
        script["env"] = dict.fromkeys(script["env"], MASK)
    _mask_variables((spec.get("workers") or {}).get("template"))
    return shown


def _mask_variables(value: Any) -> None:
    if isinstance(value, list):
        for child in value:
            _mask_variables(child)
    if not isinstance(value, dict):
        return
    for key, child in value.items():
        if key != "env" or not isinstance(child, list):
            _mask_variables(child)
            continue
        for variable in child:
            if isinstance(variable, dict) and "value" in variable:
                variable["value"] = MASK


def _is_secret(path: Path, value: str) -> bool:
    if _VALUE.search(value) or _URI.match(value):
        return True
    key = str(path[-1]) if path else ""
    if path[:3] in _MODEL_WORDS and _MODEL_TOKEN.match(key):
        return False
    return bool(_KEY.search(key))


def _secret_options(args: list[Any], path: Path) -> Iterator[Problem]:
    """Options of a script whose value is a credential: `--hub_token=abc`, or `--hub_token` and then the value."""
    texts = [str(arg) for arg in args]
    for index, text in enumerate(texts):
        option, equals, _ = text.partition("=")
        name = option.lstrip("-").replace("-", "_")
        if not option.startswith("-") or not _KEY.search(name):
            continue
        follows = index + 1 < len(texts) and not texts[index + 1].startswith("-")
        if equals or follows:
            yield _problem((*path, index if equals else index + 1), _BY_REFERENCE.replace("NAME", name.upper()))


def _in_template(path: Path) -> bool:
    return path[:3] == ("spec", "workers", "template")


def _problem(path: Path, fix: str) -> Problem:
    return Problem(path, f"looks like a secret, and everyone who can read the job would read it. {fix}")
