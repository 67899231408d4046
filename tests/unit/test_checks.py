"""Every mistake of a manifest at once, also those that only the whole of it shows."""

import json
from pathlib import Path

import pytest

from tests.conftest import manifest
from trainyard.errors import ManifestError
from trainyard.plan import inputs
from trainyard.plan.checks import check, load
from trainyard.plan.facts import gather
from trainyard.spec.manifest import loads
from trainyard.spec.model import Storage
from trainyard.spec.yamltext import dump


def problems_of(folder: Path, text: str) -> list[str]:
    file = folder / "job.yaml"
    file.write_text(text)
    with pytest.raises(ManifestError) as caught:
        load(file)
    return [line.removeprefix(f"{file}:") for line in str(caught.value).splitlines()]


def messages(**changes: object) -> dict[str, str]:
    """What check() says of a well-formed manifest, by the path."""
    spec = loads(json.dumps(manifest(**changes))).job.spec
    return {".".join(map(str, problem.path[1:])): problem.message for problem in check(spec)}


def test_mistakes_of_every_kind_are_told_at_once(tmp_path: Path) -> None:
    answer = problems_of(
        tmp_path,
        """apiVersion: trainyard.dev/v1alpha1
kind: TrainerJob
metadata: {name: job}
spec:
  task: text-classification
  model: {source: hf://org/model, config: {attn_implementation: sdpa}}
  processor: {call: {max_len: 32}}
  data:
    train:
      source: hf://datasets/imdb
      columns: {txt: body, label: category}
  trainingArguments:
    learnin_rate: 1e-5
    metric_for_best_model: acuracy
  accelerate: {mixed_precison: bf16}
""",
    )
    assert [line.partition(" ")[0] for line in answer] == [
        "6:11",
        "6:44",
        "7:22",
        "10:7",
        "11:17",
        "13:5",
        "14:5",
        "15:16",
    ]
    for line, words in zip(
        answer,
        (
            "write the name alone: org/model",
            "write spec.model.load: {attn_implementation: sdpa}",
            "Did you mean max_length?",
            "write the name alone: imdb",
            "Did you mean text?",
            "Did you mean learning_rate?",
            "Did you mean accuracy?",
            "Did you mean mixed_precision?",
        ),
        strict=True,
    ):
        assert words in line


def test_check_of_broken_part_is_left_out(tmp_path: Path) -> None:
    """That workers.count is no number says nothing about num_processes."""
    text = dump(manifest(workers={"count": "two"}, accelerate={"num_processes": 2}))
    assert [line.partition(" ")[2] for line in problems_of(tmp_path, text)] == [
        "spec.workers.count: 'two' is not a whole number"
    ]


EVALUATED = {"train": {"source": "d.jsonl"}, "evaluation": {"fraction": 0.1}}


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"trainingArguments": {"eval_on_start": True}}, "trainingArguments.eval_on_start", "nothing to evaluate on"),
        ({"trainingArguments": {"do_eval": True}}, "trainingArguments.do_eval", "nothing to evaluate on"),
        (
            {"data": EVALUATED, "trainingArguments": {"metric_for_best_model": "eval_acc"}},
            "trainingArguments.metric_for_best_model",
            "text-classification has no metric eval_acc. Did you mean accuracy?",
        ),
        (
            {"trainingArguments": {"batch_eval_metrics": True}},
            "trainingArguments.batch_eval_metrics",
            "computed over the whole evaluation",
        ),
        ({"trainingArguments": {"fp16": True}}, "trainingArguments.fp16", "write bf16: true"),
        ({"trainingArguments": {"tf32": True}}, "trainingArguments.tf32", "needs GPUs"),
        ({"accelerate": {"mixed_precision": "fp16"}}, "accelerate.mixed_precision", "write bf16"),
        ({"accelerate": {"parallelism_config": {}}}, "accelerate.parallelism_config", "not supported; remove it"),
        (
            {
                "workers": {"count": 3},
                "trainingArguments": {
                    "accelerator_config": {"split_batches": True},
                    "per_device_train_batch_size": 8,
                    "per_device_eval_batch_size": 6,
                },
            },
            "trainingArguments.per_device_train_batch_size",
            "8 samples cannot be split over 3 processes",
        ),
        (
            {
                "workers": {"count": 2},
                "trainingArguments": {"optim": "galore_adamw_layerwise", "optim_target_modules": "all-linear"},
            },
            "trainingArguments.optim",
            "in one process",
        ),
        (
            {"strategy": {"deepspeed": {"config": {"gradient_clipping": 2.0}}}},
            "strategy.deepspeed.config.gradient_clipping",
            "2.0, but trainingArguments.max_grad_norm is 1.0; write auto here",
        ),
        (
            {"strategy": {"deepspeed": {"config": {"train_batch_size": 64}}}},
            "strategy.deepspeed.config.train_batch_size",
            "write auto",
        ),
        (
            {"strategy": {"deepspeed": {"config": {"optimizer": {"type": "AdamW", "params": {"lr": 0.1}}}}}},
            "strategy.deepspeed.config.optimizer.params.lr",
            "trainingArguments.learning_rate is 5e-05",
        ),
        (
            {"data": {"train": {"source": "d"}, "evaluation": {"source": "e", "columns": {"texts": "body"}}}},
            "data.evaluation.columns.texts",
            "Did you mean text?",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value and " " not in value else "",
)
def test_what_the_run_would_refuse_is_refused(changes: dict[str, object], path: str, words: str) -> None:
    answer = messages(**changes)
    assert set(answer) == {path}
    assert words in answer[path]


def test_own_trainer_may_have_own_metrics() -> None:
    arguments = {"metric_for_best_model": "bleu", "greater_is_better": True, "batch_eval_metrics": True}
    assert messages(data=EVALUATED, trainer={"entrypoint": "own:Mine"}, trainingArguments=arguments) == {}


def test_an_unknown_metric_needs_its_direction() -> None:
    arguments = {"metric_for_best_model": "bleu"}
    answer = messages(data=EVALUATED, trainer={"entrypoint": "own:Mine"}, trainingArguments=arguments)
    assert "write greater_is_better: true" in answer["trainingArguments.metric_for_best_model"]


@pytest.mark.parametrize("uri", ["./runs", "file:///runs"])
def test_endpoint_without_bucket_is_refused(uri: str) -> None:
    answer = messages(storage={"uri": uri, "endpoint": "http://127.0.0.1:8333"})
    assert "a server serves buckets, and the manifest names none" in answer["storage.endpoint"]
    own = {"model": {"source": "s3://models/bert"}, "storage": {"uri": uri, "endpoint": "http://127.0.0.1:8333"}}
    assert messages(**own) == {}


def test_region_belongs_to_s3() -> None:
    assert messages(storage={"uri": "s3://bucket", "region": "eu-west-1"}) == {}
    answer = messages(storage={"uri": "az://container", "region": "eu-west-1"})
    assert "only S3 has regions" in answer["storage.region"]


@pytest.mark.parametrize(
    ("kept", "read", "asked"),
    [
        ("s3://runs", "s3://models/m", True),
        ("s3://runs", "gs://models/m", False),
        ("az://runs", "s3://models/m", False),
        ("./runs", "s3://models/m", True),
        ("file:///runs", "az://models/m", True),
    ],
)
def test_endpoint_holds_for_sources_of_its_kind(kept: str, read: str, asked: bool) -> None:
    storage = Storage(uri=kept, endpoint="http://127.0.0.1:8333")
    assert storage.endpoint_for(read) == (storage.endpoint if asked else None)


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"code": "src"}, "code", "src: no such folder"),
        ({"model": {"source": "data/models/minilm"}}, "model.source", "no such folder"),
        ({"data": {"train": {"source": "data/train.jsonl"}}}, "data.train.source", "no such file or folder"),
    ],
    ids=["code", "model", "data"],
)
def test_path_without_dot_that_is_not_here_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], path: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (answer,) = problems_of(tmp_path, dump(manifest(**changes)))
    assert f"spec.{path}" in answer
    assert words in answer
    assert f"relative paths count from {tmp_path}" in answer


def test_path_without_dot_that_is_here_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainyard.cluster.upload import needed

    monkeypatch.chdir(tmp_path)
    for folder in ("src", "models/minilm"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.json").write_text("{}")
    (tmp_path / "rows.jsonl").write_text("{}\n")
    changes = {"code": "src", "model": {"source": "models/minilm"}, "data": {"train": {"source": "rows.jsonl"}}}
    (tmp_path / "job.yaml").write_text(dump(manifest(**changes)))
    job = load(tmp_path / "job.yaml").job
    assert [".".join(each.where[1:]) for each in needed(job)] == ["model.source", "data.train.source", "code"]


@pytest.mark.parametrize(
    ("labels", "metric", "known"),
    [
        (["a", "b"], "mse", "loss, accuracy, f1"),
        ([0.5, 1.5], "eval_accuracy", "loss, mse, r2"),
        ([["a"], ["a", "b"]], "r2", "loss, f1, accuracy"),
    ],
    ids=["classes", "numbers", "several"],
)
def test_metric_of_other_labels_is_told(tmp_path: Path, labels: list[object], metric: str, known: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": "x", "label": label}) + "\n" for label in labels * 4))
    data = {"train": {"source": str(file)}, "evaluation": {"fraction": 0.5}}
    arguments = {"metric_for_best_model": metric}
    problem = gather(loads(json.dumps(manifest(data=data, trainingArguments=arguments))).job.spec).problem
    assert problem is not None
    assert problem.startswith(f"spec.trainingArguments.metric_for_best_model: {metric} is no metric of")
    assert known in problem


@pytest.mark.parametrize(
    ("arguments", "package"),
    [
        ({"optim": "adamw_torch_xla"}, "torch_xla"),
        ({"report_to": ["dvclive"]}, "dvclive"),
        ({"report_to": "clearml"}, "clearml"),
    ],
)
def test_argument_without_its_package_is_told_before_a_run(arguments: dict[str, object], package: str) -> None:
    spec = loads(json.dumps(manifest(trainingArguments=arguments))).job.spec
    (answer,) = [each for each in inputs.check(spec) if each.path[1] == "trainingArguments"]
    assert answer.path[2] == next(iter(arguments))
    assert answer.message.startswith(f"it needs the package {package}, which is not installed here")


def test_argument_whose_package_is_here_passes() -> None:
    spec = loads(json.dumps(manifest(trainingArguments={"optim": "adamw_torch", "report_to": "none"}))).job.spec
    assert [each for each in inputs.check(spec) if each.path[1] == "trainingArguments"] == []
