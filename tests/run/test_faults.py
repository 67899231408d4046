"""Kills, interruptions, corruption and full disks: real ones, against the whole command."""

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import Tiny, fill, folder_bytes, losses, tiny_manifest, train_loss
from tests.run.conftest import Start
from trainyard.train import heartbeat
from trainyard.train.heartbeat import Awaited

LONG = {"max_steps": 40, "per_device_train_batch_size": 4, "logging_steps": 1, "save_steps": 5, "learning_rate": 1e-3}


def test_after_a_kill_of_everything_the_run_goes_on_as_the_unbroken_one(
    tiny: Tiny, tmp_path: Path, start: Start
) -> None:
    arguments = {**LONG, "max_steps": 80}
    file = tiny_manifest(tiny, tmp_path, trainingArguments=arguments, strategy={"deepspeed": {"zeroStage": 2}})
    code, _, told = start(file, "--set", "metadata.name=unbroken").end()
    assert code == 0, told
    broken, seeded = start(file), random.Random(0)
    for _ in range(seeded.randint(1, 4)):
        broken.wait_for("committed")
    folders = tmp_path / "runs/job/checkpoints"
    known = set(folders.iterdir())
    offset = seeded.random() * max(map(folder_bytes, known))
    while not any(folder_bytes(folder) >= offset for folder in set(folders.iterdir()) - known):
        assert broken.process.poll() is None
        time.sleep(0.001)
    broken.kill_all()
    assert not (tmp_path / "runs/job/final/manifest.json").exists()

    started = time.monotonic()
    again = start(file)
    again.cost("everything killed: the next command", started, ("going on from checkpoint",))
    told = next(line for line in again.lines if "going on from checkpoint" in line)
    resumed = int(told.split("checkpoint ")[1][:8])
    assert resumed >= 5
    code, _, told = again.end()
    assert code == 0, told
    unbroken, survived = losses(tmp_path / "runs/unbroken"), losses(tmp_path / "runs/job")
    assert set(survived) == set(range(1, 81))
    assert survived == pytest.approx(unbroken, abs=1e-6)
    assert train_loss(tmp_path / "runs/job") == pytest.approx(train_loss(tmp_path / "runs/unbroken"), abs=1e-6)


def _freeze_in_a_step(rank: psutil.Process) -> float:
    """Stop a rank where no save is on its way, which may take half an hour. Returns when."""
    signs = next(Path(each.path) for each in rank.open_files() if "heartbeat-" in each.path)
    while True:
        rank.suspend()
        if (beat := heartbeat.read(signs)) is not None and beat.awaited is Awaited.STEP:
            return time.monotonic()
        rank.resume()
        time.sleep(0.003)


def test_a_killed_process_and_one_that_hangs_cost_an_attempt_each_and_no_committed_step(
    tiny: Tiny, tmp_path: Path, start: Start
) -> None:
    arguments = {**LONG, "max_steps": 400}
    running = start(tiny_manifest(tiny, tmp_path, trainingArguments=arguments, restart={"hangSeconds": 3}))
    running.wait_for("committed")
    killed = time.monotonic()
    running.training_processes()[-1].send_signal(signal.SIGKILL)
    running.cost("rank killed", killed, ("SIGKILL", "attempt 2, going on from checkpoint"))
    running.wait_for("committed")
    actors = {"TrainController", "SynchronizationActor", "DatasetManager", "PlacementGroupCleaner"}
    assert "RayTrainWorker" in running.ray_processes()
    assert not running.ray_processes() & actors, "each costs a second of start-up"
    frozen = _freeze_in_a_step(running.training_processes()[-1])
    running.cost("rank hangs (hangSeconds: 3)", frozen, ("taken to hang", "attempt 3, going on from checkpoint"))
    running.wait_for("committed")
    killed, warm = time.monotonic(), running.warm_process()
    assert warm is not None
    warm.kill()
    running.cost("warm process killed", killed, ("SIGKILL", "attempt 4, going on from checkpoint"))
    code, _, told = running.end()
    assert code == 0, told
    assert set(losses(tmp_path / "runs/job")) == set(range(1, 401))
    end = json.loads((tmp_path / "runs/job/attempts/00001-end.json").read_text())
    assert end["outcome"] == "Infrastructure"
    logs = [log.read_text() for log in (tmp_path / "runs/job/logs/attempt-00002").iterdir()]
    assert any("most recent call first" in log for log in logs), "the rank that waited tells where"


def test_ctrl_c_saves_and_stops_and_the_same_command_goes_on(tiny: Tiny, tmp_path: Path, start: Start) -> None:
    file = tiny_manifest(tiny, tmp_path, trainingArguments={**LONG, "max_steps": 100_000, "save_steps": 50_000})
    running = start(file)
    running.wait_for("step 1")
    running.process.send_signal(signal.SIGINT)
    running.wait_for("saving a checkpoint, then stopping")
    running.wait_for("committed")
    code, _, told = running.end()
    assert code == 130, told
    assert "run the same command again to go on" in told
    (checkpoint,) = (tmp_path / "runs/job/checkpoints").iterdir()
    step = int(checkpoint.name[:8])
    again = start(file, "--set", f"trainingArguments.max_steps={step + 3}")
    again.wait_for(f"going on from checkpoint {checkpoint.name}")
    code, _, told = again.end()
    assert code == 0, told


def test_sigterm_at_any_time_ends_quietly_and_sigterm_in_training_saves(
    tiny: Tiny, tmp_path: Path, start: Start
) -> None:
    file = tiny_manifest(tiny, tmp_path, trainingArguments={**LONG, "max_steps": 100_000, "save_steps": 50_000})
    for line, saved in (("attempt 1", 0), ("step 1", 1)):
        running = start(file)
        running.wait_for(line)
        running.process.send_signal(signal.SIGTERM)
        code, _, told = running.end()
        assert code == 130, told
        assert "SIGTERM received" not in told, "Ray's crash dump"
        assert len(list((tmp_path / "runs/job").glob("checkpoints/*/manifest.json"))) == saved, told


def test_sigterm_to_every_process_of_a_run_saves_and_stops(tiny: Tiny, tmp_path: Path, start: Start) -> None:
    file = tiny_manifest(tiny, tmp_path, trainingArguments={**LONG, "max_steps": 100_000, "save_steps": 50_000})
    running = start(file)
    running.wait_for("step 1")
    for process in [*psutil.Process(running.process.pid).children(recursive=True), running.process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)  # as Slurm and systemd do it
    running.wait_for("saving a checkpoint, then stopping")
    running.process.send_signal(signal.SIGTERM)  # as timeout(1) does it
    code, _, told = running.end()
    assert code == 130, told
    assert len(list((tmp_path / "runs/job").glob("checkpoints/*/manifest.json"))) == 1, told


def test_a_killed_process_of_ray_ends_the_run_with_its_name_and_the_same_command_goes_on(
    tiny: Tiny, tmp_path: Path, start: Start
) -> None:
    file = tiny_manifest(tiny, tmp_path, trainingArguments={**LONG, "max_steps": 100_000})
    for name, begins in (("raylet", "attempt 1"), ("gcs_server", "going on from checkpoint")):
        running = start(file)
        running.wait_for(begins)
        running.wait_for("committed")
        children = psutil.Process(running.process.pid).children(recursive=True)
        next(child for child in children if child.name() == name).kill()
        code, _, told = running.end()
        assert code == 5, told
        assert f"Ray's {name} died" in told
        assert not psutil.wait_procs(children, timeout=10)[1]


def test_output_that_goes_away_does_not_stop_training(tiny: Tiny, tmp_path: Path, start: Start) -> None:
    running = start(tiny_manifest(tiny, tmp_path, trainingArguments={**LONG, "max_steps": 300, "save_steps": 300}))
    running.wait_for("step 1")
    assert running.process.stderr
    running.process.stderr.close()
    running.process.wait(timeout=120)
    assert (tmp_path / "runs/job/final/manifest.json").exists()


def test_a_corrupt_best_checkpoint_and_a_damaged_metric_do_not_block_the_run(
    tiny: Tiny, tmp_path: Path, start: Start
) -> None:
    arguments = {
        **LONG, "max_steps": 8, "save_steps": 2, "eval_steps": 2, "eval_strategy": "steps", "load_best_model_at_end": True,
        "metric_for_best_model": "loss", "greater_is_better": True, "learning_rate": 1.0,
    }  # fmt: skip
    data = {"train": {"source": tiny.rows("classes")}, "evaluation": {"fraction": 0.25}}
    file = tiny_manifest(tiny, tmp_path, trainingArguments=arguments, data=data)
    code, _, told = start(file).end()
    assert code == 0, told
    run = tmp_path / "runs/job"
    state = json.loads(max(run.glob("checkpoints/*/trainer_state.json")).read_text())
    best = next(run.glob(f"checkpoints/{state['best_global_step']:08d}-*"))
    if best.name.startswith("00000008"):
        pytest.skip("the best is the newest with this seed")
    with (best / "model.safetensors").open("r+b") as stream:
        stream.write(b"corrupt")
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write("{bad}\n")
    again = start(file, "--set", "trainingArguments.max_steps=10")
    assert "was set aside" in again.wait_for("the best checkpoint")
    code, _, told = again.end()
    assert code == 0, told


def test_a_second_ctrl_c_stops_at_once(tiny: Tiny, tmp_path: Path, start: Start) -> None:
    running = start(
        tiny_manifest(tiny, tmp_path, trainingArguments={**LONG, "max_steps": 100_000, "save_steps": 50_000})
    )
    running.wait_for("step 1")
    for process in running.training_processes():
        process.send_signal(signal.SIGSTOP)  # a save that hangs
    running.process.send_signal(signal.SIGINT)
    running.wait_for("Ctrl-C now stops at once")
    children = psutil.Process(running.process.pid).children(recursive=True)
    running.process.send_signal(signal.SIGINT)
    code, _, told = running.end()
    assert code == 130, told
    assert "Traceback" not in told
    assert not psutil.wait_procs(children, timeout=10)[1]


def test_a_corrupt_checkpoint_is_set_aside_and_the_one_before_is_used(tiny: Tiny, tmp_path: Path, start: Start) -> None:
    file = tiny_manifest(tiny, tmp_path)
    code, _, told = start(file, "--set", "trainingArguments.max_steps=6").end()
    assert code == 0, told
    weights = tmp_path / "runs/job/checkpoints/00000006-00001/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    started, again = time.monotonic(), start(file)
    signs = ("00000006-00001 is corrupt and was set aside", "going on from checkpoint 00000004-00001")
    again.cost("a checkpoint is corrupt: the next command", started, signs)
    code, _, told = again.end()
    assert code == 0, told


def test_a_users_exception_fails_at_once_with_its_words(tiny: Tiny, tmp_path: Path, start: Start) -> None:
    folder = tmp_path / "rows"  # the plan does not look into folders
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"text": "a", "label": "x"}\n' * 5)
    code, _, told = start(tiny_manifest(tiny, tmp_path, data={"train": {"source": str(folder)}})).end()
    assert code == 5
    assert "label has a single value, 'x'" in told
    assert "attempt 2" not in told


def test_another_model_under_the_same_name_is_refused(tiny: Tiny, tmp_path: Path, start: Start) -> None:
    file = tiny_manifest(tiny, tmp_path, trainingArguments={"max_steps": 2, "per_device_train_batch_size": 4})
    code, _, told = start(file).end()
    assert code == 0, told
    before = (tmp_path / "runs/job/run.json").read_bytes()
    code, _, told = start(file, "--set", "task=fill-mask", "--set", f"data.train.source={tiny.rows('texts')}").end()
    assert code == 5
    assert "spec.task was text-classification, now fill-mask" in told
    assert (tmp_path / "runs/job/run.json").read_bytes() == before

    code, out, told = start(file).end()
    assert code == 0
    assert "already complete" in told
    assert "job is complete" in out
    assert len(list((tmp_path / "runs/job/attempts").iterdir())) == 2, "one attempt, and its end"


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ({"uri": "/proc/nowhere"}, "check that the folder exists"),
        ({"uri": "s3://bucket/x", "endpoint": "http://127.0.0.1:9"}, "reaches the server: spec.storage.endpoint"),
    ],
    ids=["folder", "s3"],
)
def test_a_storage_that_cannot_be_written_is_found_before_training(
    tiny: Tiny, tmp_path: Path, start: Start, storage: dict[str, str], message: str
) -> None:
    env = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    code, _, told = start(tiny_manifest(tiny, tmp_path, storage=storage), env=env).end()
    assert code == 7
    assert message in told
    assert "preparing" not in told


def test_a_full_storage_disk_is_told_and_loses_nothing(
    tiny: Tiny, tmp_path: Path, small_disk: Path, start: Start
) -> None:
    arguments = {"max_steps": 60, "per_device_train_batch_size": 4, "save_steps": 2}
    file = tiny_manifest(
        tiny,
        tmp_path,
        storage={"uri": str(small_disk)},
        trainingArguments=arguments,
        checkpoint={"keepLast": 100, "backlog": "Wait"},
        restart={"maxRestarts": 1},
    )
    code, _, told = start(file).end()
    assert code == 5, told
    assert "the disk is full" in told
    assert f"cannot write {small_disk}" in told
    committed = [folder for folder in (small_disk / "job/checkpoints").iterdir() if (folder / "manifest.json").exists()]
    assert committed, "what was committed before is still there"

    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    again = start(file)
    again.wait_for("going on from checkpoint")
    code, _, told = again.end()
    assert code == 0, told


def test_a_full_staging_disk_is_told_and_waited_for_and_loses_nothing(
    tiny: Tiny, tmp_path: Path, small_disk: Path, start: Start
) -> None:
    subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
    running = start(
        tiny_manifest(tiny, tmp_path, trainingArguments={**LONG, "max_steps": 400}),
        env={"TMPDIR": str(small_disk), "RAY_TMPDIR": "/tmp"},
    )
    running.wait_for("committed")
    filled = fill(small_disk)
    running.wait_for("no space left on the disk of")
    filled.unlink()
    running.cost("the staging disk was full", time.monotonic(), ("going on from checkpoint",))
    code, _, told = running.end()
    assert code == 0, told
    assert set(losses(tmp_path / "runs/job")) == set(range(1, 401))


def test_staging_moves_to_disk_when_memory_is_full_and_loses_nothing(tiny: Tiny, tmp_path: Path, start: Start) -> None:
    if os.getuid() != 0:
        pytest.skip("mounting a small /dev/shm needs root")
    small = 'mount -t tmpfs -o size=10m tmpfs /dev/shm && exec "$@"'  # holds the buffers of one save, not of two
    arguments = {"max_steps": 60, "per_device_train_batch_size": 4, "save_steps": 20}
    running = start(
        tiny_manifest(tiny, tmp_path, trainingArguments=arguments, checkpoint={"staging": "Memory"}),
        within=("unshare", "--mount", "sh", "-c", small, "sh"),
    )
    code, _, told = running.end()
    assert code == 0, told
    assert "memory for staging is full" in told
    folder = tmp_path / "runs/job/checkpoints"
    assert [file.parent.name[:8] for file in sorted(folder.glob("*/manifest.json"))] == [
        "00000020",
        "00000040",
        "00000060",
    ]
