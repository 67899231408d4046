"""A user's own code: fetched, found by imports, and called."""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import Trainer

from trainyard.errors import JobError
from trainyard.spec.model import Spec
from trainyard.train.sources import local_folder


def enter(spec: Spec) -> None:
    """Let the modules of spec.code be imported; a script also runs there. Raises JobError when it is not there."""
    if spec.code is None:
        return
    folder = str(Path(local_folder(spec.code, spec.storage)).resolve())
    sys.path.insert(0, folder)
    if spec.script is not None:
        try:
            os.chdir(folder)
        except OSError as error:
            raise JobError(f"spec.code: {spec.code} cannot be entered: {error.strerror}") from error


def trainer_class(spec: Spec) -> Callable[..., Any]:
    """What builds the Trainer: transformers' class, or what spec.trainer.entrypoint names. Raises JobError."""
    if spec.trainer is None:
        return Trainer
    module, _, name = spec.trainer.entrypoint.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise JobError(f"spec.trainer.entrypoint: {error}. It is looked for in spec.code ({spec.code})") from error
    if not callable(found):
        raise JobError(f"spec.trainer.entrypoint: {spec.trainer.entrypoint} is neither a class nor a function")
    made: Callable[..., Any] = found
    return made
