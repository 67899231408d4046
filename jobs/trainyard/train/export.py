"""Stage 5: the model to use, its card, its curves and its report, into `final/` of the run."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from trainyard.checkpoint.attempts import newest_number, now
from trainyard.checkpoint.manifest import Manifest
from trainyard.checkpoint.transfer import folder_files, upload
from trainyard.errors import JobError
from trainyard.plan import identity
from trainyard.storage import layout
from trainyard.train import adapter, report
from trainyard.train.arguments import global_batch_size, staging_file, versions
from trainyard.train.capture import PICKLES
from trainyard.train.work import Work


@dataclass(frozen=True)
class Final:
    """What came out."""

    url: str
    metrics: dict[str, float]


def evaluate(trainer: Trainer) -> dict[str, float]:
    """The metrics of the model as it is now; those of the last evaluation if it was of this very model."""
    if trainer.eval_dataset is None:
        return {}
    last = [row for row in trainer.state.log_history if "eval_loss" in row][-1:]
    fresh = last and last[0]["step"] == trainer.state.global_step and not trainer.args.load_best_model_at_end
    found = last[0] if fresh else trainer.evaluate()
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}


def export(work: Work, trainer: Trainer, metrics: dict[str, float], dtype: torch.dtype | None = None) -> Final:
    """Write `final/`, with weights in a dtype if one is given.

    A collective: with ZeRO-3 every rank holds a part of the weights.
    """
    folder = staging_file(work, "final")
    with _saved_as(trainer, dtype), _without_pickles():
        if trainer.is_fsdp_enabled:  # in parts, Trainer would save no weights
            trainer._save(str(folder), state_dict=trainer.accelerator.get_state_dict(trainer.model))
        else:
            trainer.save_model(str(folder))
    trainer.accelerator.wait_for_everyone()
    store = work.store
    if trainer.args.process_index == 0:
        if work.job.spec.script is None:
            _write_config(folder, work, trainer, dtype)
            report.write(folder, work, trainer.state, metrics)
        newest = newest_number(store)
        if newest != work.attempt:
            raise JobError(
                f"attempt {newest} has begun since: this one, {work.attempt}, must not write {layout.FINAL}/"
            )
        # The manifest is last, here too: without it `final/` is not whole.
        store.delete([f"{layout.FINAL}/{layout.MANIFEST}"])
        files = upload(store, layout.FINAL, folder_files(folder))
        manifest = Manifest(
            step=trainer.state.global_step,
            attempt=work.attempt,
            world_size=trainer.args.world_size,
            strategy=work.strategy,
            global_batch_size=global_batch_size(trainer.args),
            files=tuple(files),
            metrics=metrics,
            versions=versions(),
            created_at=now(),
            training=identity.training(work.manifest),
        )
        store.put(f"{layout.FINAL}/{layout.MANIFEST}", manifest.to_json())
        shutil.rmtree(folder, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    return Final(store.url(layout.FINAL), metrics)


@contextlib.contextmanager
def _saved_as(trainer: Any, dtype: torch.dtype | None) -> Iterator[None]:
    """Within, Trainer._save writes the weights in a dtype; in their own where it is None."""
    if dtype is None:
        yield
        return
    original = trainer._save

    def save(output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if state_dict is None:
            state_dict = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False).state_dict()
        original(output_dir, state_dict=_cast(state_dict, dtype))

    trainer._save = save
    try:
        yield
    finally:
        del trainer._save


def _cast(weights: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """The weights in a dtype. Tensors that share their memory, as tied embeddings do, share it afterwards."""
    cast: dict[Any, torch.Tensor] = {}
    result = {}
    for name, tensor in weights.items():
        if not tensor.is_floating_point() or tensor.dtype == dtype:
            result[name] = tensor
            continue
        place = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if place not in cast:
            cast[place] = tensor.to(dtype)
        result[name] = cast[place]
    return result


@contextlib.contextmanager
def _without_pickles() -> Iterator[None]:
    """Within, Trainer does not pickle its arguments: nobody may load them, and a script's may not be picklable."""
    original = torch.save

    def save(item: Any, file: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(file, str | os.PathLike) or Path(file).name not in PICKLES:
            original(item, file, *args, **kwargs)

    torch.save = save  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.save = original


def _write_config(folder: Path, work: Work, trainer: Any, dtype: torch.dtype | None) -> None:
    """Write the task into config.json, so that `trainyard predict` and `eval` know it from the folder alone."""
    if adapter.is_adapter(folder):
        assert work.job.spec.model is not None
        model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
        adapter.describe(folder, model, work.job.spec.model)
    file = adapter.config_folder(folder) / "config.json"
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    config["task"] = work.job.spec.task
    if dtype is not None:
        config["dtype"] = str(dtype).removeprefix("torch.")
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
