"""Every mistake at once, each with its line, its column and the fix."""

import json
from pathlib import Path

import pytest

from tests.conftest import manifest
from trainyard.errors import ManifestError
from trainyard.plan import inputs
from trainyard.plan.checks import check
from trainyard.spec.manifest import as_manifest, loads
from trainyard.spec.schema import crd
from trainyard.spec.yamltext import dump


def text_of(**changes: object) -> str:
    return dump(manifest(**changes))


def problems_of(text: str) -> str:
    with pytest.raises(ManifestError) as caught:
        loads(text)
    return str(caught.value)


def test_all_mistakes_are_told_with_their_lines() -> None:
    told = problems_of(
        """apiVersion: trainyard.dev/v1alpha1
kind: TrainerJob
metadata:
  name: Not_A_Name
spec:
  task: text-clasification
  model: {source: ./m}
  data:
    train: {source: ./d}
  trainingArguments:
    learnin_rate: 1e-5
    warmup_ratio: 0.1
  workers: {cuont: 2}
"""
    ).splitlines()
    assert [line.partition(" ")[0] for line in told] == [
        "job.yaml:4:3",
        "job.yaml:6:3",
        "job.yaml:11:5",
        "job.yaml:12:5",
        "job.yaml:13:13",
    ]
    assert "Did you mean text-classification?" in told[1]
    assert "spec.trainingArguments.learnin_rate: unknown argument. Did you mean learning_rate?" in told[2]
    assert "warmup_steps: 0.1" in told[3]
    assert "Did you mean count?" in told[4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"strategy": {"ddp": {}, "deepspeed": {}}},
            "exactly one strategy is wanted (ddp, deepspeed or fsdp); found ddp and deepspeed",
        ),
        ({"strategy": {}}, "found none"),
        ({"strategy": {"deepspeed": {"zeroStage": 4}}}, "4 is none of 1, 2 or 3"),
        ({"workers": {"count": "two"}}, "'two' is not a whole number"),
        ({"workers": {"count": 0}}, "greater than or equal to 1"),
        ({"model": {}}, "give source; or fromConfig: true"),
        ({"model": {"source": "a/b", "trustRemoteCode": True}}, "pin what you read with revision"),
        ({"data": {"train": {"source": "d"}, "evaluation": {}}}, "give either source"),
        ({"data": {"train": {"source": "d"}, "evaluation": {"fraction": 1.5}}}, "less than 1"),
        ({"model": {"from_config": True, "source": "x"}}, "Did you mean fromConfig?"),
        ({"storage": {}}, "spec.storage.uri: missing"),
        ({"storage": {"uri": "s3://"}}, "s3:// is no storage: write s3://bucket/prefix"),
        ({"storage": {"uri": "http://bucket"}}, "http://bucket is no storage"),
        ({"storage": {"uri": "ftp://me:pw@host"}}, "ftp://host is no storage"),
        ({"storage": {"uri": "s3//bucket/x"}}, "s3//bucket/x is no storage"),
        ({"storage": {"uri": "s3:/bucket/x"}}, "s3:/bucket/x is no storage"),
        ({"resumeFrom": "ftp://host/checkpoint-5"}, "spec.resumeFrom: ftp://host/checkpoint-5 is no storage"),
        ({"storage": {"uri": "file://runs"}}, "write s3://bucket/prefix, gs://…, az://…, file:///…"),
        *(
            ({"storage": {"uri": "s3://bucket", "endpoint": url}}, f"{url} is no URL of a server")
            for url in ("http://host:99999", "http://host:0", "http://host:abc", "http://[::1")
        ),
        ({"suspend": "yes please"}, "neither true nor false"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_mistake_has_a_fix(changes: dict[str, object], message: str) -> None:
    assert message in problems_of(text_of(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"source": "m", "config": {"api_token": "abc"}}},
        {"model": {"source": "https://user:secret@host/model"}},
        {"accelerate": {"note": "AKIA" + "ABCDEFGHIJKLMNOP"}},
        {"workers": {"template": {"spec": {"containers": [{"env": [{"name": "X", "value": "hf_" + "a" * 34}]}]}}}},
        {"trainingArguments": {"hub_token": "x"}},
    ],
    ids=["key", "uri", "aws", "nested", "hub_token"],
)
def test_a_literal_secret_is_refused_and_not_printed(changes: dict[str, object]) -> None:
    told = problems_of(text_of(**changes))
    assert "secret" in told or "token in a manifest" in told
    for secret in ("abc\n", "user:secret", "AKIA" + "ABCDEFGHIJKLMNOP", "hf_aaaa"):
        assert secret not in told


def test_what_stands_where_it_should_not_is_not_printed() -> None:
    document = manifest(storage={"uri": "./runs", "region": {"AWS_SECRET_ACCESS_KEY": "abcSECRETabc"}})
    with pytest.raises(ManifestError) as told:
        loads(json.dumps(document))
    assert "abcSECRETabc" not in str(told.value)
    assert "spec.storage.region" in str(told.value)


def test_a_broken_override_is_a_problem() -> None:
    with pytest.raises(ManifestError, match=r"--set data\.evaluation"):
        loads(json.dumps(manifest()), overrides=("data.evaluation={source: a b",))


def test_the_name_of_a_secret_is_no_secret() -> None:
    assert (
        loads(text_of(storage={"uri": "s3://b/p", "secret": "s3-credentials"})).job.spec.storage.secret
        == "s3-credentials"
    )


@pytest.mark.parametrize("written", ["2e-5", "2.0e-5", "2E-5", "0.00002", ".00002"])
def test_a_learning_rate_in_every_spelling_is_a_number(written: str) -> None:
    text = text_of(trainingArguments={"learning_rate": 0}).replace("learning_rate: 0", f"learning_rate: {written}")
    assert loads(text).job.spec.training_arguments["learning_rate"] == pytest.approx(2e-5)


def test_a_quoted_number_is_told_to_lose_its_quotes() -> None:
    assert "remove the quotes" in problems_of(text_of(trainingArguments={"learning_rate": "2e-5"}))


def test_yamls_accidents_are_mended() -> None:
    text = (
        text_of(trainingArguments={"eval_strategy": "NO", "max_steps": "MANY"})
        .replace("NO", "no")
        .replace("MANY", "1e3")
    )
    arguments = loads(text).job.spec.training_arguments
    assert arguments == {"eval_strategy": "no", "max_steps": 1000}
    assert isinstance(arguments["max_steps"], int)


def test_set_changes_a_field_and_keeps_the_rules() -> None:
    loaded = loads(
        text_of(), overrides=("workers.count=3", "trainingArguments.learning_rate=2e-5", "metadata.name=other")
    )
    assert (loaded.job.spec.workers.count, loaded.job.name) == (3, "other")
    with pytest.raises(ManifestError, match="unknown argument"):
        loads(text_of(), overrides=("trainingArguments.nothing=1",))
    with pytest.raises(ManifestError, match="--set x: write it as"):
        loads(text_of(), overrides=("x",))


def test_a_manifest_written_out_is_read_the_same() -> None:
    job = loads(
        text_of(
            workers={"count": 2}, strategy={"deepspeed": {"zeroStage": 3}}, trainingArguments={"learning_rate": 2e-5}
        )
    ).job
    assert loads(dump(as_manifest(job))).job == job


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": {"fsdp": {}}}, "FSDP2 needs GPUs"),
        ({"trainingArguments": {"eval_strategy": "epoch"}}, "add spec.data.evaluation"),
        ({"workers": {"gpus": 1, "processesPerWorker": 2}}, "2 processes would share 1 GPUs"),
        ({"accelerate": {"num_processes": 8}}, "spec.workers makes 1 processes"),
        ({"accelerate": {"mixed_precison": "bf16"}}, "Did you mean mixed_precision?"),
        ({"accelerate": {"deepspeed_config": {}}}, "write spec.strategy.deepspeed.config"),
        ({"trainingArguments": {"save_total_limit": 5}, "checkpoint": {"keepLast": 2}}, "keep one of them"),
        ({"resumeFrom": "runs/other/checkpoint-5"}, "write ./runs/other/checkpoint-5"),
        ({"task": "translation"}, "does not train yet"),
        ({"strategy": {"ddp": {"config": {"find_unused_parameter": True}}}}, "Did you mean find_unused_parameters?"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_done_is_told(changes: dict[str, object], message: str) -> None:
    (problem,) = check(loads(text_of(**changes)).job.spec)
    assert message in problem.message


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "holds no trainer_state.json"),
        ({"trainer_state.json": "hi"}, "a damaged trainer_state.json"),
        ({"trainer_state.json": "{}"}, "no state of the optimizer and the scheduler"),
        ({"trainer_state.json": "{}", "optimizer.pt": ""}, "no state of the scheduler"),
        ({"trainer_state.json": "{}", "optimizer.pt": "", "scheduler.pt": ""}, ""),
        ({"trainer_state.json": "{}", "global_step3": ""}, ""),
    ],
    ids=lambda value: "" if isinstance(value, str) else "+".join(value) or "nothing",
)
def test_a_checkpoint_that_would_be_gone_on_from_without_its_optimizer_is_refused(
    tmp_path: Path, files: dict[str, str], words: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    spec = loads(text_of(resumeFrom=str(tmp_path))).job.spec
    found = [problem.message for problem in inputs.check(spec) if problem.path == ("spec", "resumeFrom")]
    assert [words in message for message in found] == ([True] if words else [])


@pytest.mark.parametrize(
    ("written", "cpu", "memory"),
    [("1", "1", "1"), ("0.5", "0.5", None), ("2.0", "2", "2"), ('"4"', "4", "4"), ("500m", "500m", "500m")],
)
def test_amounts_are_numbers_or_texts(written: str, cpu: str, memory: str | None) -> None:
    amounts = f"{{cpu: {written}" + (f", memory: {written}}}" if memory else "}")
    text = text_of(workers={"resources": "AMOUNTS"}).replace("AMOUNTS", amounts)
    resources = loads(text).job.spec.workers.resources
    assert (resources.cpu, resources.memory) == (cpu, memory)


@pytest.mark.parametrize("written", ["true", "-1", "4 cores", "[1]"])
def test_amount_that_is_none_is_told(written: str) -> None:
    told = problems_of(text_of(workers={"resources": {"cpu": "CPU"}}).replace("CPU", written))
    assert "spec.workers.resources.cpu" in told


def test_crd_takes_amounts_as_kubernetes_does() -> None:
    spec = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    for amount in spec["workers"]["properties"]["resources"]["properties"].values():
        assert amount["x-kubernetes-int-or-string"] is True
        assert amount["anyOf"] == [{"type": "integer"}, {"type": "string"}]
        assert "type" not in amount
