"""Checkpoints of the whole command: saved on demand, looked after by `ckpt`, committed though their trainers are dead."""

import json
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.bed.proxy import Fault, FaultyProxy
from tests.bed.s3 import S3Server
from tests.conftest import Cli, Tiny, losses, tiny_manifest
from tests.run.conftest import Running, Start

LONG = {
    "max_steps": 100_000, "per_device_train_batch_size": 4, "logging_steps": 1, "save_steps": 50_000,
    "learning_rate": 1e-3, "lr_scheduler_type": "constant",
}  # fmt: skip


def test_save_verify_pull_rm_and_another_number_of_workers(tiny: Tiny, tmp_path: Path, start: Start, cli: Cli) -> None:
    file = tiny_manifest(tiny, tmp_path, trainingArguments=LONG)
    running = start(file)
    running.wait_for("attempt 1")  # long before the first step
    saved = [cli("ckpt", "save", str(file)) for _ in range(2)]
    assert [done.returncode for done in saved] == [0, 0], saved[0].stderr
    first, second = (done.stdout.strip() for done in saved)
    twice = cli("run", str(file))
    assert (twice.returncode, "is being run by another process" in twice.stderr) == (2, True), twice.stderr
    running.process.send_signal(signal.SIGINT)
    assert running.end()[0] == 130
    ended = cli("ckpt", "save", str(file))
    assert (ended.returncode, "Fix: start it with trainyard run" in ended.stderr) == (4, True), ended.stderr

    verified = cli("ckpt", "verify", str(file), first)
    assert verified.returncode == 0, verified.stderr
    pulled = cli("ckpt", "pull", str(file), second, "--as-trainer", "--to", str(tmp_path))
    assert (Path(pulled.stdout.strip()) / "optimizer.pt").read_bytes()[:2] == b"PK"
    twice = cli("ckpt", "pull", str(file), second, "--to", str(tmp_path))
    assert (twice.returncode, "exists; remove it" in twice.stderr) == (2, True), twice.stderr
    nowhere = cli("ckpt", "pull", str(file), second, "--to", str(file))
    assert (nowhere.returncode, "Fix: name a folder" in nowhere.stderr) == (7, True), nowhere.stderr
    run = tmp_path / "runs/job"
    committed = run / "checkpoints" / second / "manifest.json"
    committed.rename(away := tmp_path / "manifest.json")
    (run / "attempts/00001-end.json").rename(end := tmp_path / "end.json")  # as while it trains
    assert "was never committed" in cli("ckpt", "verify", str(file), second).stderr
    saving = cli("ckpt", "rm", str(file), second)
    assert (saving.returncode, "is being saved" in saving.stderr) == (2, True), saving.stderr
    end.rename(run / "attempts/00001-end.json")
    away.rename(committed)
    weights = run / "checkpoints" / second / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    corrupt = cli("ckpt", "verify", str(file), "--all")
    assert corrupt.returncode == 7
    assert f"{second}   Corrupt" in corrupt.stdout
    damaged = cli("ckpt", "pull", str(file), second, "--to", str(tmp_path / "elsewhere"))
    assert (damaged.returncode, "Fix: pull an older one" in damaged.stderr) == (7, True), damaged.stderr
    assert not (tmp_path / "elsewhere").exists()
    assert cli("ckpt", "rm", str(file), second).returncode == 0
    assert not weights.exists()
    missing = cli("ckpt", "verify", str(file), second)
    assert missing.returncode == 4
    assert first in missing.stderr

    manifest = run / "checkpoints" / first / "manifest.json"
    whole = json.loads(manifest.read_bytes())
    later = {name: value for name, value in whole.items() if name != "sha256"} | {"format": whole["format"] + 1}
    manifest.write_text(json.dumps(later))
    unknown = cli("ckpt", "verify", str(file), "--all")
    assert (unknown.returncode, "a newer one" in unknown.stderr) == (5, True), unknown.stderr
    manifest.write_text(json.dumps(whole))

    newest = json.loads(cli("ckpt", "ls", str(file), "-o", "json").stdout)[-1]
    assert (newest["state"], newest["size"] > 10_000, newest["reason"]) == ("Committed", True, "")
    assert newest["metrics"]["loss"] == pytest.approx(losses(run)[newest["step"]])
    steps = newest["step"] + 3
    again = start(file, "--set", f"trainingArguments.max_steps={steps}", "--set", "workers.count=1")
    assert "4 a process × 2 accumulation × 1 processes" in again.wait_for("a step stays 8 samples")
    code, _, told = again.end()
    assert code == 0, told
    assert max(losses(run)) == steps
    three = start(file, "--set", f"trainingArguments.max_steps={steps + 3}", "--set", "workers.count=3")
    code, _, told = three.end()
    assert code == 5, told
    assert "3 processes cannot share equally; these can: 1, 2, 4, 8" in told
    again = start(file, "--set", f"trainingArguments.max_steps={steps + 3}", "--set", "workers.count=3")
    assert again.end()[0] == 5, "what was refused has not been trained"


def test_what_was_staged_whole_is_committed_though_every_trainer_and_the_uploader_were_killed(
    tiny: Tiny, tmp_path: Path, start: Start, s3: S3Server
) -> None:
    proxy = FaultyProxy(s3.endpoint)
    try:
        storage = {"uri": f"s3://bucket/{tmp_path.name}", "endpoint": proxy.endpoint}
        arguments = {**LONG, "max_steps": 60, "save_steps": 5}
        file = tiny_manifest(
            tiny, tmp_path, trainingArguments=arguments, storage=storage, checkpoint={"backlog": "Wait"}
        )
        running = start(file, env=s3.environment)
        running.wait_for("step 1/")
        running.wait_for("committed")
        with proxy.fault(Fault(hang=True)):
            staged = _staged(running, 2)
            for process in running.training_processes():
                process.send_signal(signal.SIGKILL)
            _uploader(running).send_signal(signal.SIGKILL)
            killed = time.monotonic()
        running.cost("every rank and the uploader killed", killed, ("attempt failed", "going on from checkpoint"))
        told = [line for line in running.lines if "going on from checkpoint" in line][-1]
        assert told.split("checkpoint ")[1].startswith(staged[-1])
        code, _, told = running.end()
        assert code == 0, told
    finally:
        proxy.close()


def _uploader(running: Running) -> psutil.Process:
    children = psutil.Process(running.process.pid).children()
    return next(child for child in children if "trainyard.launch.uploads" in child.cmdline())


def _staged(running: Running, ranks: int) -> list[str]:
    """The checkpoints that are staged whole and not settled, once training waits for them."""
    folder = Path(_uploader(running).cmdline()[-2])
    known: list[str] = []
    until = time.monotonic() + 60
    while time.monotonic() < until:
        tickets = [file.name.partition("-rank-")[0] for file in folder.glob("[0-9]*-rank-*.json")]
        now = sorted(
            {
                name
                for name in tickets
                if tickets.count(name) == ranks and not (folder / f"{name}-receipt.json").exists()
            }
        )
        if now and now == known:
            return now
        known = now
        time.sleep(1.0)
    pytest.fail("nothing was staged")
