"""Local inputs, looked at before anything is started: what is missing is told in a second, not in a minute."""

from collections.abc import Iterator
from pathlib import Path

from trainyard.spec.model import Spec
from trainyard.spec.yamltext import Problem


def check(spec: Spec) -> Iterator[Problem]:
    """Every local file or folder that the manifest names and this machine has not."""
    if spec.model.source and _is_local(spec.model.source):
        folder = Path(spec.model.source).expanduser()
        where = ("spec", "model", "source")
        if not folder.is_dir():
            yield Problem(where, f"{spec.model.source}: no such folder{_from_here(folder)}")
        elif not (folder / "config.json").exists():
            yield Problem(
                where, f"{spec.model.source} holds no config.json, so it is no model that transformers can load"
            )
    sources = {"train": spec.data.train.source}
    if spec.data.evaluation is not None and spec.data.evaluation.source:
        sources["evaluation"] = spec.data.evaluation.source
    for name, source in sources.items():
        if _is_local(source) and "*" not in source and not Path(source).expanduser().exists():
            yield Problem(
                ("spec", "data", name, "source"), f"{source}: no such file or folder{_from_here(Path(source))}"
            )


def _is_local(source: str) -> bool:
    return source.startswith((".", "/", "~"))


def _from_here(path: Path) -> str:
    return "" if path.is_absolute() or str(path).startswith("~") else f" (relative paths count from {Path.cwd()})"
