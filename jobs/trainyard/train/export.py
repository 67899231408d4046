"""Stage 5: the model to use, its card, its curves and its report, into `final/` of the run."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import Trainer

from trainyard.checkpoint.attempts import newest_number, now
from trainyard.checkpoint.manifest import Manifest
from trainyard.checkpoint.transfer import folder_files, upload
from trainyard.errors import JobError
from trainyard.storage import layout
from trainyard.train import report
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


def export(work: Work, trainer: Trainer, metrics: dict[str, float]) -> Final:
    """Write `final/`. A collective: with ZeRO-3 every rank holds a part of the weights."""
    folder = staging_file(work, "final")
    if trainer.is_fsdp_enabled:  # in parts, Trainer would save no weights
        trainer._save(str(folder), state_dict=trainer.accelerator.get_state_dict(trainer.model))
    else:
        trainer.save_model(str(folder))
    trainer.accelerator.wait_for_everyone()
    store = work.store
    if trainer.args.process_index == 0:
        for name in PICKLES:
            (folder / name).unlink(missing_ok=True)
        if work.job.spec.script is None:
            _tell_task(folder, work)
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
        )
        store.put(f"{layout.FINAL}/{layout.MANIFEST}", manifest.to_json())
        shutil.rmtree(folder, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    return Final(store.url(layout.FINAL), metrics)


def _tell_task(folder: Path, work: Work) -> None:
    """Write the task into config.json, so that `trainyard predict` and `eval` know it from the folder alone."""
    file = folder / "config.json"
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    config["task"] = work.job.spec.task
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
