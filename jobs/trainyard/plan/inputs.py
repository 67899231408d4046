"""Local inputs, looked at before anything is started: what is missing is told in a second, not in a minute."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

from trainyard.plan import files
from trainyard.plan.batch import value
from trainyard.plan.sources import named
from trainyard.spec import library
from trainyard.spec.model import Spec
from trainyard.spec.yamltext import Problem

_ENDINGS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".txt", ".gz", ".zst")
"""Of files: no data set of the hub has such a name."""


_TRACKERS = {
    "clearml": ("clearml",),
    "codecarbon": ("codecarbon",),
    "comet_ml": ("comet_ml",),
    "dvclive": ("dvclive",),
    "mlflow": ("mlflow",),
    "swanlab": ("swanlab",),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}
"""The packages that transformers' trackers import, by their names in report_to; one of each will do."""


def check(spec: Spec) -> Iterator[Problem]:
    """Every local file or folder that the manifest names and this machine has not."""
    for where, source in named(spec).items():
        if not is_local(source):
            continue
        path = Path(source).expanduser()
        if where[1] == "data":
            if not files.matching(source):
                yield Problem(where, f"{source}: no such file or folder{_from_here(path)}")
        elif not path.is_dir():
            yield Problem(where, f"{source}: no such folder{_from_here(path)}")
        elif where[1] == "resumeFrom" and (words := lacks(path)):
            yield Problem(where, f"{source} {words}")
        elif where[1] == "model" and not (path / "config.json").exists():
            yield Problem(where, f"{source} holds no config.json, so it is no model that transformers can load")
    if spec.script is None:
        yield from _packages(spec)
    if spec.script is not None and (spec.code is None or is_local(spec.code)):
        script = Path(spec.code or ".").expanduser() / spec.script.path
        if not script.is_file():
            yield Problem(("spec", "script", "path"), f"{script}: no such file{_from_here(script)}")


def _packages(spec: Spec) -> Iterator[Problem]:
    """Arguments whose package is not installed here, where the training processes will be."""
    given = spec.training_arguments
    optimizer = library.optimizers().get(value(given, "optim"))
    needed: dict[str, list[tuple[str, ...]]] = {}
    needed["optim"] = [(optimizer.package,)] if optimizer is not None and optimizer.package else []
    needed["use_liger_kernel"] = [("liger_kernel",)] if given.get("use_liger_kernel") else []
    trackers = given.get("report_to") or []
    words = trackers.split() if isinstance(trackers, str) else trackers
    needed["report_to"] = [_TRACKERS[word] for word in words if word in _TRACKERS]
    for name, modules in needed.items():
        for alternatives in modules:
            if not any(importlib.util.find_spec(module) for module in alternatives):
                message = f"it needs the package {alternatives[0]}, which is not installed here: install it"
                yield Problem(("spec", "trainingArguments", name), f"{message}, or remove the argument")


def lacks(checkpoint: Path) -> str:
    """What a folder is without, in words, to be a checkpoint of Trainer that can be gone on from; empty: nothing."""
    state = checkpoint / "trainer_state.json"
    if not state.exists():
        return f"holds no {state.name}, so it is no checkpoint of Trainer"
    try:
        damaged = not isinstance(json.loads(state.read_bytes()), dict)
    except (OSError, ValueError):
        damaged = True
    if damaged:
        return f"holds a damaged {state.name}: name another checkpoint"
    # Trainer goes on without a word where they are missing, with an optimizer that has seen nothing.
    if any(checkpoint.glob("global_step*")):  # DeepSpeed's
        return ""
    missing = [name for name in ("optimizer", "scheduler") if not any(checkpoint.glob(f"{name}*"))]
    instead = "to begin with its weights alone, name it as model.source"
    return f"holds no state of the {' and the '.join(missing)}: name another checkpoint; {instead}" if missing else ""


def is_local(source: str) -> bool:
    """Whether a source is a path or a pattern of paths, not a name of the hub and not a URI.

    What is here is a path, as transformers and datasets see it, also without ./ before it.
    """
    return source.startswith((".", "/", "~")) or ("://" not in source and bool(files.matching(source)))


def misspelt(spec: Spec) -> Iterator[Problem]:
    """Sources that can be nothing but a path, and are not on this machine: no name of the hub looks like them."""
    for where, source in named(spec).items():
        if is_local(source) or "://" in source:
            continue
        if where[-1] == "code":
            yield Problem(
                where, f"{source}: no such folder{_from_here(Path(source))}. A URI is written s3://bucket/code"
            )
        elif where[-1] == "source" and (source.count("/") > 1 or Path(source).suffix in _ENDINGS):
            kind = "file or folder" if where[1] == "data" else "folder"
            hint = "the hub's names are owner/name"
            yield Problem(where, f"{source}: no such {kind}{_from_here(Path(source))}, and {hint}")


def _from_here(path: Path) -> str:
    return "" if path.is_absolute() or str(path).startswith("~") else f" (relative paths count from {Path.cwd()})"
