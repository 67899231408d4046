"""A user's own script, run unchanged: its Trainer's progress is told, its checkpoints are kept and resumed from.

The script runs in the process's main thread with its arguments, its environment and torchrun's variables, as under
torchrun. Whatever Trainer it makes, transformers' own or one derived from it, gets our callbacks when it is made
and the checkpoint to resume from when it is told to train.
"""

import contextlib
import os
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch.distributed as dist
from transformers import Trainer, TrainingArguments

from trainyard.errors import JobError
from trainyard.plan.batch import divisors
from trainyard.protocol.ending import Ending
from trainyard.train import export, mend, shells, trackers, trainer
from trainyard.train.arguments import global_batch_size
from trainyard.train.callbacks import AgreementCallback
from trainyard.train.course import Course
from trainyard.train.metrics import MetricsLog
from trainyard.train.work import Work


class _Watched:
    """The Trainers of a script: the one that is trained is the job's, others may evaluate."""

    def __init__(self, work: Work, course: Course) -> None:
        self.work, self.course = work, course
        self.trained: Trainer | None = None
        self.log: MetricsLog | None = None
        self.stops: dict[Trainer, AgreementCallback] = {}

    def init(self, built: Trainer, original: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        original(built, *args, **kwargs)
        # One for all: a Trainer that is made to evaluate what another has trained adds to its rows.
        if built.args.run_name is None:  # a tracker would give each attempt a name of its own
            built.args.run_name = self.work.job.name
        self.log = self.log or trainer.metrics_log(self.work, built.args)
        made, self.stops[built] = trainer.callbacks(self.work, built.args, self.course.events, self.log)
        for callback in made:
            built.add_callback(callback)

    def train(self, built: Trainer, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.trained is not None:
            raise JobError(
                "the script trains a second time, and its checkpoints would pass for those of the first. Make each "
                "training a job of its own; the second one's model is the final/ of the first"
            )
        _same_group(built.args)
        self.trained = self.course.trainer = built
        if self.work.resume_folder is not None:
            _same_batch(self.work, built.args)
            args, kwargs = args[1:], {**kwargs, "resume_from_checkpoint": self.work.resume_folder}
        made = original(built, *args, **kwargs)
        if self.stops[built].stopped:
            raise _StoppedError
        return made


def _same_group(args: TrainingArguments) -> None:
    """Raises JobError for a Trainer that trains alone, as those of the other ranks do: all would save to one place."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if args.world_size != ranks:
        raise JobError(
            f"the job has {ranks} training processes, and the script's Trainer takes part in a group of "
            f"{args.world_size}: each process would train the whole job. Do not change WORLD_SIZE, RANK or LOCAL_RANK "
            "before TrainingArguments are made, or set workers.count and processesPerWorker to 1"
        )


def _same_batch(work: Work, args: TrainingArguments) -> None:
    """Raises JobError for a batch other than before: the run would go on with other samples, at a place of its own."""
    before, made = work.global_batch_size, global_batch_size(args)
    if before is None or made == before:
        return
    each, rest = divmod(before, args.world_size)
    if rest:
        fix = f"{args.world_size} processes cannot share them; these can: {', '.join(map(str, divisors(before)))}"
    else:
        fix = f"have per_device_train_batch_size × gradient_accumulation_steps be {each} in the script"
    raise JobError(
        f"checkpoint {work.resumed_id} was written with {before} samples a step, and the script takes {made} "
        f"({args.train_batch_size} a process × {args.gradient_accumulation_steps} accumulation × {args.world_size} "
        f"processes): {fix}, or start anew (resume: Never)"
    )


class _ExitCodeError(Exception):
    """The script ended itself with an exit code that says it failed."""


class _StoppedError(BaseException):
    """Leaves the script after the save that it was stopped for; nothing of its own that it catches."""


def run(work: Work, course: Course) -> Ending:
    """Run the script of a job to its end, and keep the model that it trained. Raises what the script raises."""
    spec = work.job.spec.script
    assert spec is not None
    path = Path(spec.path)
    if not path.is_file():
        raise JobError(f"spec.script.path: {Path.cwd() / path}: no such file")
    watched = _Watched(work, course)
    mend.apply()
    trackers.install(work)
    mend.replace(Trainer.__init__, watched.init)
    mend.replace(Trainer.train, watched.train)
    shells.hide(work.resume_folder)
    if not work.job.spec.workers.gpus and os.environ.get("WORLD_SIZE", "1") != "1":
        TrainingArguments.__post_init__ = _on_cpus(TrainingArguments.__post_init__)
    # The agent reports progress; transformers' own report would be a second one.
    os.environ.update({"DISABLE_KUBEFLOW_INTEGRATION": "TRUE", **spec.env})
    sys.argv = [spec.path, *spec.args]
    # Python has read the variable when this process began, long before it was told.
    given = [folder for folder in spec.env.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.path[:0] = [str(path.parent.resolve()), *given]
    with _as_main(spec.path) as module:
        return _run(work, course, watched, module)


def _run(work: Work, course: Course, watched: _Watched, module: types.ModuleType) -> Ending:
    path = str(module.__file__)
    try:
        with _group_kept():
            exec(compile(Path(path).read_bytes(), path, "exec"), vars(module))  # noqa: S102 - what the job is for
    except _StoppedError:
        assert watched.trained is not None
        return Ending.stopped("stopped when asked; the step is committed", course.step)
    except SystemExit as error:
        if error.code not in (None, 0):
            # With the script's own traceback: the place is where it ended itself, not here.
            ended = _ExitCodeError(f"{path} ended with exit code {error.code}")
            raise ended.with_traceback(error.__traceback__) from error
    if watched.trained is None:
        return Ending.complete(f"{path} ended; it trained no Trainer")
    course.events.send("phase", text="exporting")
    final = export.export(work, watched.trained, _measured(watched.trained))
    course.events.send("final", url=final.url, metrics=final.metrics)
    return Ending.complete(final.url, course.step)


def _on_cpus(original: Callable[..., None]) -> Callable[..., None]:
    """TrainingArguments.__post_init__ where there is no GPU, whether or not a script says so.

    Without use_cpu accelerate makes no process group there, and each rank would train alone. With it FSDP would become
    DDP without a word.
    """

    def post_init(args: TrainingArguments, *rest: Any) -> None:
        args.use_cpu = args.use_cpu or not args.fsdp
        original(args, *rest)

    return post_init


@contextlib.contextmanager
def _as_main(path: str) -> Iterator[types.ModuleType]:
    """An empty module for the script, which is `__main__` within.

    It stays until the model is exported: what is pickled then, DataLoader's workers too, finds the script's classes.
    """
    module = types.ModuleType("__main__")
    module.__file__ = path
    launcher = sys.modules["__main__"]
    sys.modules["__main__"] = module
    try:
        yield module
    finally:
        sys.modules["__main__"] = launcher


@contextlib.contextmanager
def _group_kept() -> Iterator[None]:
    """A script's last line often ends the process group, which the export of its model still needs."""
    original = dist.destroy_process_group
    dist.destroy_process_group = lambda group=None: None if group is None else original(group)
    try:
        yield
    finally:
        dist.destroy_process_group = original


def _measured(built: Trainer) -> dict[str, float]:
    """What the script measured last."""
    rows = [row for row in built.state.log_history if "eval_loss" in row][-1:]
    return {name: float(value) for row in rows for name, value in row.items() if isinstance(value, int | float)}
