"""What is well-formed but cannot be done: every mistake of a manifest at once, each with its line and the fix.

A check says which parts of spec it reads. When one of these is not well-formed it is left out: it would judge what
was not meant.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from trainyard.errors import ManifestError
from trainyard.plan import accelerate, inputs, modelcheck, strategy
from trainyard.plan.batch import splits_batches, value
from trainyard.plan.sources import named
from trainyard.spec import library
from trainyard.spec.hints import did_you_mean
from trainyard.spec.manifest import Loaded, Reading, describe, read_file
from trainyard.spec.model import DataSet, Spec
from trainyard.spec.tasks import EVALUATION_PREFIX, TASKS
from trainyard.spec.urls import check_source, is_bucket
from trainyard.spec.yamltext import Problem

Problems = Iterator[Problem]

_BUCKET = "s3://bucket/prefix"
_NO_FP16 = "without GPUs accelerate trains in float32 and does not say so"
_TIMES = ("runtime", "samples_per_second", "steps_per_second")
"""What Trainer adds to the metrics of each evaluation."""


@dataclass(frozen=True)
class Check:
    """A check of a whole spec, and the parts of spec that it reads."""

    find: Callable[[Spec], Problems]
    reads: frozenset[str]


def load(path: str | Path, overrides: tuple[str, ...] = ()) -> Loaded:
    """The job of a file, checked. Raises ManifestError with all mistakes, or NotFoundError.

    Local model folders are looked at, too; that data and code are there, only the run looks at (plan.inputs).
    """
    text, reading = read_file(path, overrides)
    problems = [*reading.problems, *_sound(reading, [*CHECKS, *_LOCAL_CHECKS])]
    if problems or reading.job is None:
        raise ManifestError(describe(str(path), problems, text))
    return Loaded(reading.job, str(path), text)


def check(spec: Spec) -> list[Problem]:
    """What is wrong with a well-formed spec, whatever this machine has."""
    problems: list[Problem] = []
    for each in CHECKS:
        problems += each.find(spec)
    return problems


def _sound(reading: Reading, checks: list[Check]) -> Problems:
    """The problems of a spec as far as it could be read, by the checks whose parts are well-formed."""
    if reading.job is None:
        return
    for each in checks:
        if not each.reads & reading.broken:
            yield from each.find(reading.job.spec)


def _accelerate(spec: Spec) -> Problems:
    for key, message in accelerate.check(spec):
        yield Problem(("spec", "accelerate", key), message)


def _strategy(spec: Spec) -> Problems:
    name = strategy.strategy_name(spec)
    for path, message in strategy.check(spec):
        yield Problem(("spec", "strategy", name, "config", *path), message)
    if name == "fsdp" and not spec.workers.gpus:
        message = "FSDP2 needs GPUs: accelerate replaces it by DDP on CPU without a word. Set workers.gpus, or use ddp"
        yield Problem(("spec", "strategy", "fsdp"), message)
    if name == "deepspeed" and "offload" in str(spec.strategy.deepspeed) and not spec.workers.gpus:
        message = "offloading to the CPU means nothing without GPUs; remove the offload_ keys"
        yield Problem(("spec", "strategy", "deepspeed", "config"), message)


def _task(spec: Spec) -> Problems:
    if spec.script is None and spec.task not in TASKS:
        message = f"{spec.task} does not train yet in this version; what does: {', '.join(TASKS)}"
        yield Problem(("spec", "task"), message)


def _processes(spec: Spec) -> Problems:
    if spec.workers.gpus and spec.workers.processes > spec.workers.gpus:
        message = f"{spec.workers.processes} processes would share {spec.workers.gpus} GPUs; one a GPU is the most"
        yield Problem(("spec", "workers", "processesPerWorker"), message)


def _without_evaluation(spec: Spec) -> Problems:
    if spec.data is None or spec.data.evaluation is not None:
        return
    given = spec.training_arguments
    asking = ("eval_strategy", "load_best_model_at_end", "eval_on_start", "do_eval")
    wanted = [name for name in asking if given.get(name) not in (None, False, "no")]
    if given.get("save_strategy") == "best":
        wanted.append("save_strategy")
    for name in wanted:
        yield _argument(name, "there is nothing to evaluate on: add spec.data.evaluation")


def _keep_last(spec: Spec) -> Problems:
    limit = spec.training_arguments.get("save_total_limit")
    kept = spec.checkpoint.keep_last
    if limit is not None and limit != kept and "keep_last" in spec.checkpoint.model_fields_set:
        yield _argument("save_total_limit", f"{limit}, but spec.checkpoint.keepLast is {kept}; keep one of them")


def _resume_from(spec: Spec) -> Problems:
    begin = spec.resume_from
    if begin is not None and not inputs.is_local(begin) and "://" not in begin:  # a hub has models, no checkpoints
        message = f"{begin} is neither a path nor a URI: write ./{begin} for a folder of this machine"
        yield Problem(("spec", "resumeFrom"), message)


def _sources(spec: Spec) -> Problems:
    for where, source in named(spec).items():
        try:
            check_source(source)
        except ValueError as error:
            yield Problem(where, str(error))


def _columns(spec: Spec) -> Problems:
    info = TASKS.get(spec.task or "")
    if info is None or spec.data is None:
        return
    known = [column.name for column in info.columns]
    sets: dict[str, DataSet | None] = {"train": spec.data.train, "evaluation": spec.data.evaluation}
    for where, data in sets.items():
        for name in data.columns if data is not None else ():
            if name not in known:
                message = f"{info.name} reads no column {name}. {did_you_mean(name, known)}"
                yield Problem(("spec", "data", where, "columns", name), message)


def _metric(spec: Spec) -> Problems:
    info, written = TASKS.get(spec.task or ""), spec.training_arguments.get("metric_for_best_model")
    if info is None or written is None:
        return
    known, name = info.metric_names, written.removeprefix(EVALUATION_PREFIX)
    if name in (*known, *_TIMES):
        return
    if spec.trainer is None:
        yield _argument("metric_for_best_model", f"{info.name} has no metric {written}. {did_you_mean(name, known)}")
    elif spec.training_arguments.get("greater_is_better") is None:  # a Trainer of your own may have its own metrics
        message = f"it is no metric of {info.name}: write greater_is_better: true, or false where less is better"
        yield _argument("metric_for_best_model", message)


def _batch_metrics(spec: Spec) -> Problems:
    if spec.training_arguments.get("batch_eval_metrics") and spec.trainer is None:
        message = "cannot work here: the metrics of a task are computed over the whole evaluation. Remove it"
        yield _argument("batch_eval_metrics", message)


def _needs_gpu(spec: Spec) -> Problems:
    if spec.workers.gpus:
        return
    if spec.training_arguments.get("tf32"):
        yield _argument("tf32", "tf32 needs GPUs, and spec.workers.gpus is 0; remove it, or set workers.gpus")
    if spec.training_arguments.get("fp16"):
        yield _argument("fp16", f"{_NO_FP16}; write bf16: true, or set workers.gpus")
    if spec.accelerate.get("mixed_precision") == "fp16":
        where = ("spec", "accelerate", "mixed_precision")
        yield Problem(where, f"{_NO_FP16}; write bf16, or set workers.gpus")


def _split_batches(spec: Spec) -> Problems:
    given, world_size = spec.training_arguments, _world_size(spec)
    if not splits_batches(given):
        return
    if spec.strategy.deepspeed is not None:
        where = ("spec", "trainingArguments", "accelerator_config", "split_batches")
        yield Problem(where, "DeepSpeed counts per_device_train_batch_size for each process; remove it")
    for name in ("per_device_train_batch_size", "per_device_eval_batch_size"):
        size = value(given, name)
        if size % world_size:
            message = f"{size} samples cannot be split over {world_size} processes (accelerator_config.split_batches)"
            yield _argument(name, f"{message}; write a multiple of {world_size}")


def _optimizer(spec: Spec) -> Problems:
    optimizer = library.optimizers().get(value(spec.training_arguments, "optim"))
    if optimizer is not None and optimizer.layerwise and _world_size(spec) > 1:
        message = f"steps layer by layer in one process, and spec.workers makes {_world_size(spec)}; use another"
        yield _argument("optim", message)


def _endpoint(spec: Spec) -> Problems:
    """Fields of storage that hold for no URI of the manifest."""
    storage = spec.storage
    uris = [uri for uri in (storage.uri, *named(spec).values()) if is_bucket(uri)]
    if storage.endpoint is not None and not uris:
        message = f"a server serves buckets, and the manifest names none: remove it, or write {_BUCKET}"
        yield Problem(("spec", "storage", "endpoint"), message)
    if storage.region is not None and not any(uri.startswith("s3://") for uri in uris):
        message = f"only S3 has regions, and the manifest names no bucket of it: remove it, or write {_BUCKET}"
        yield Problem(("spec", "storage", "region"), message)


def _world_size(spec: Spec) -> int:
    return spec.workers.count * spec.workers.processes


def _argument(name: str, message: str) -> Problem:
    return Problem(("spec", "trainingArguments", name), message)


def _check(find: Callable[[Spec], Problems], *reads: str) -> Check:
    return Check(find, frozenset(reads))


CHECKS = (
    _check(_accelerate, "accelerate", "workers", "strategy"),
    _check(_strategy, "strategy", "workers"),
    _check(_task, "task"),
    _check(_processes, "workers"),
    _check(_without_evaluation, "data"),
    _check(_keep_last, "checkpoint"),
    _check(_resume_from, "resumeFrom"),
    _check(_sources),
    _check(_columns, "task", "data"),
    _check(_metric, "task", "trainer"),
    _check(_batch_metrics, "trainer"),
    _check(_needs_gpu, "workers"),
    _check(_split_batches, "workers", "strategy"),
    _check(_optimizer, "workers"),
    _check(_endpoint, "storage", "model", "processor", "data", "code", "resumeFrom"),
    _check(modelcheck.call_keywords, "task", "processor", "model"),
    _check(modelcheck.load_arguments, "model"),
    _check(modelcheck.config_fields, "model"),
    _check(modelcheck.label_fields, "model"),
)
"""What needs nothing but the manifest."""

_LOCAL_CHECKS = (
    _check(modelcheck.row_length, "model", "processor"),
    _check(inputs.misspelt, "model", "data", "code"),
)
"""What looks at this machine's files."""
