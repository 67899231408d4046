"""Local inputs, looked at before anything is started: what is missing is told in a second, not in a minute."""

from collections.abc import Iterator
from pathlib import Path

from trainyard.plan.sources import named
from trainyard.spec.model import Spec
from trainyard.spec.yamltext import Problem


def check(spec: Spec) -> Iterator[Problem]:
    """Every local file or folder that the manifest names and this machine has not."""
    for where, source in named(spec).items():
        if not is_local(source):
            continue
        path = Path(source).expanduser()
        if where[1] == "data":
            if "*" not in source and not path.exists():
                yield Problem(where, f"{source}: no such file or folder{_from_here(path)}")
        elif not path.is_dir():
            yield Problem(where, f"{source}: no such folder{_from_here(path)}")
        elif where[1] == "resumeFrom" and not (path / "trainer_state.json").exists():
            yield Problem(where, f"{source} holds no trainer_state.json, so it is no checkpoint of Trainer")
        elif where[1] == "model" and not (path / "config.json").exists():
            yield Problem(where, f"{source} holds no config.json, so it is no model that transformers can load")
    if spec.script is not None and (spec.code is None or is_local(spec.code)):
        script = Path(spec.code or ".").expanduser() / spec.script.path
        if not script.is_file():
            yield Problem(("spec", "script", "path"), f"{script}: no such file{_from_here(script)}")


def is_local(source: str) -> bool:
    """Whether a source is a path, not a hub id and not a URI."""
    return source.startswith((".", "/", "~"))


def _from_here(path: Path) -> str:
    return "" if path.is_absolute() or str(path).startswith("~") else f" (relative paths count from {Path.cwd()})"
