"""The plan: batch arithmetic, chosen arguments with their reasons, memory, and the resolved job."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import manifest
from trainyard.errors import JobError
from trainyard.plan.batch import batch
from trainyard.plan.facts import Facts, gather
from trainyard.plan.identity import differences, identity
from trainyard.plan.machine import available_memory
from trainyard.plan.peek import count as counted
from trainyard.plan.plan import Plan, plan
from trainyard.spec.manifest import loads
from trainyard.spec.model import Source


def planned(facts: Facts | None = None, **changes: object) -> Plan:
    return plan(loads(json.dumps(manifest(**changes))).job, facts or Facts())


@pytest.mark.parametrize(
    ("arguments", "world", "rows", "per_epoch", "total"),
    [
        ({"per_device_train_batch_size": 16, "num_train_epochs": 3}, 2, 1780, 56, 168),
        ({"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4, "num_train_epochs": 1}, 2, 1000, 16, 16),
        ({"per_device_train_batch_size": 8, "dataloader_drop_last": True, "num_train_epochs": 1}, 2, 100, 6, 6),
        ({"per_device_train_batch_size": 8, "num_train_epochs": 0.5}, 1, 80, 10, 5),
        ({"per_device_train_batch_size": 8, "max_steps": 7}, 1, 80, 10, 7),
        ({"per_device_train_batch_size": 8, "max_steps": 7}, 1, None, None, 7),
        ({}, 1, None, None, None),
    ],
    ids=["epochs", "accumulation", "drop-last", "half", "max-steps", "unknown-rows", "unknown"],
)
def test_steps_are_trainers(
    arguments: dict[str, object], world: int, rows: int | None, per_epoch: int | None, total: int | None
) -> None:
    found = batch(arguments, world, rows)
    assert (found.steps_per_epoch, found.total_steps) == (per_epoch, total)


def test_every_choice_has_a_reason_and_never_overrides_the_user() -> None:
    made = planned(Facts(train_rows=1000), trainingArguments={"logging_steps": 7, "use_cpu": True})
    assert "logging_steps" not in made.chosen
    assert made.arguments["logging_steps"] == 7
    assert all(choice.reason for choice in made.chosen.values())
    assert made.arguments["save_steps"] == math.ceil(made.batch.total_steps / 10)


def test_do_eval_alone_evaluates() -> None:
    data = {"train": {"source": "d"}, "evaluation": {"fraction": 0.1}}
    assert planned(data=data, trainingArguments={"do_eval": True}).arguments["eval_strategy"] == "epoch"


def test_zero_settings_are_written_out_and_the_users_win() -> None:
    made = planned(
        strategy={
            "deepspeed": {
                "zeroStage": 3,
                "config": {"zero_optimization": {"overlap_comm": True}, "gradient_clipping": 2.0},
            }
        }
    )
    config = made.arguments["deepspeed"]
    assert config["zero_optimization"] == {
        "stage": 3,
        "stage3_gather_16bit_weights_on_model_save": True,
        "overlap_comm": True,
    }
    assert config["gradient_clipping"] == 2.0
    assert config["train_batch_size"] == "auto"


@pytest.mark.parametrize(
    ("workers", "strategy", "bytes_a_parameter"),
    [
        (1, {"ddp": {}}, 16),
        (4, {"ddp": {}}, 20),
        (4, {"deepspeed": {"zeroStage": 1}}, 8 + 8 / 4),
        (4, {"deepspeed": {"zeroStage": 2}}, 4 + 12 / 4),
        (4, {"deepspeed": {"zeroStage": 3}}, 16 / 4),
    ],
    ids=["no group", "ddp", "zero1", "zero2", "zero3"],
)
def test_memory_of_model_states(workers: int, strategy: dict[str, object], bytes_a_parameter: float) -> None:
    made = planned(Facts(parameters=1_000_000, largest_tensor=0), strategy=strategy, workers={"count": workers})
    assert made.memory.value == int(bytes_a_parameter * 1_000_000)


def test_memory_that_cannot_do_is_a_warning() -> None:
    made = planned(Facts(parameters=10**9, largest_tensor=1, memory_bytes=2**33), workers={"count": 2})
    assert "use fewer processes" in made.warnings[0]


def test_saves_by_steps_win_and_the_plan_says_so() -> None:
    made = planned(checkpoint={"every": "10m"}, trainingArguments={"save_steps": 5})
    assert made.cadence.value == "every 5 steps"
    assert made.cadence.reason == "trainingArguments.save_steps; checkpoint.every gives way to it"
    assert planned(checkpoint={"every": "10m"}).cadence.value == "every 10m"


ROOMY = Facts(parameters=2**30, largest_tensor=1, memory_bytes=2**40, shared_memory_bytes=2**40)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"memory_bytes": 2**34}, "2 checkpoints need 24.00 GiB and 16.00 GiB of memory are free"),
        ({"shared_memory_bytes": 2**26}, "2 checkpoints need 24.00 GiB and /dev/shm holds 0.06 GiB"),
    ],
    ids=["memory", "/dev/shm"],
)
def test_staging_in_memory_that_has_no_room_is_refused(changes: dict[str, int], words: str) -> None:
    assert planned(ROOMY, checkpoint={"staging": "Memory"}).staging.value == "Memory"
    with pytest.raises(JobError, match=words):
        planned(replace(ROOMY, **changes), checkpoint={"staging": "Memory"})


def test_where_a_checkpoint_is_staged_follows_from_the_room() -> None:
    assert planned(ROOMY).staging.value == "Memory"
    small = planned(replace(ROOMY, shared_memory_bytes=2**26)).staging
    assert (small.value, small.reason.partition(", ")[2]) == ("Disk", "more than the 0.06 GiB of /dev/shm")
    full = planned(replace(ROOMY, free_disk_bytes=2**33), checkpoint={"staging": "Disk"})
    assert "a checkpoint is about 12.00 GiB and 8.00 GiB are free on the disk of" in full.warnings[0]
    assert planned(replace(ROOMY, free_disk_bytes=2**33)).warnings == (), "nothing is staged there"


@pytest.mark.parametrize(
    ("name", "text", "count"),
    [
        ("a.jsonl", '{"a":1}\n\n{"a":2}\n', 2),
        ("a.csv", 'a,b\n1,"x\ny"\n2,z\n', 2),
        ("a.json", '[{"a":1}]', None),
        ("a.txt", "x", None),
    ],
)
def test_rows_are_counted_where_that_is_cheap(tmp_path: Path, name: str, text: str, count: int | None) -> None:
    (tmp_path / name).write_text(text)
    assert counted(Source(source=str(tmp_path / name)), "data.train") == count


def test_parameters_are_read_from_the_weights_header(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file(
        {"a": torch.zeros(10, 20), "b": torch.zeros(7)}, tmp_path / "model.safetensors", metadata={"format": "pt"}
    )
    facts = gather(loads(json.dumps(manifest(model={"source": str(tmp_path)}))).job.spec)
    assert (facts.parameters, facts.largest_tensor) == (207, 200)


def test_the_free_memory_is_what_the_limits_around_leave(tmp_path: Path) -> None:
    mib, service = 1024**2, tmp_path / "sys/fs/cgroup/pods/one"
    for folder in (tmp_path / "proc/self", service):
        folder.mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 99 kB\nMemAvailable: 1048576 kB\n")
    assert available_memory(tmp_path) == 1024 * mib
    (tmp_path / "proc/self/cgroup").write_text("0::/pods/one\n")
    for folder, limit in ((service, "max"), (service.parent, str(512 * mib))):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{200 * mib}\n")
        (folder / "memory.stat").write_text(f"anon {150 * mib}\ninactive_file {50 * mib}\n")
    assert available_memory(tmp_path) == 362 * mib
    (tmp_path / "proc/meminfo").unlink()
    assert available_memory(tmp_path) is None


def test_another_model_or_other_rows_are_another_run(tmp_path: Path) -> None:
    data = tmp_path / "d.jsonl"
    data.write_text('{"text": "a", "label": "b"}\n')

    def of(**changes: object) -> dict[str, object]:
        spec = loads(json.dumps(manifest(data={"train": {"source": str(data)}}, **changes))).job.spec
        return identity(spec)

    before = of()
    assert differences(before, of(workers={"count": 4}, trainingArguments={"max_steps": 1})) == []
    assert differences(before, of(model={"source": "./other"})) == ["spec.model.source was ./model, now ./other"]
    data.write_text('{"text": "a", "label": "c"}\n')
    assert differences(before, of()) == ["the content of spec.data.train has changed"]


@pytest.mark.parametrize("header", ["[1]", "{", '{"a": 1}', '{"a": {"shape": "x"}}'])
def test_a_damaged_weights_header_is_named(tmp_path: Path, header: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode())
    facts = gather(loads(json.dumps(manifest(model={"source": str(tmp_path)}))).job.spec)
    file = tmp_path / "model.safetensors"
    assert facts.problem == f"spec.model.source: {file} is no safetensors file, or a damaged one"


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_text("no Parquet")
    facts = gather(loads(json.dumps(manifest(data={"train": {"source": str(tmp_path / "rows.parquet")}}))).job.spec)
    assert str(facts.problem).startswith(f"spec.data.train: {tmp_path}/rows.parquet is no Parquet file, or a damaged")
