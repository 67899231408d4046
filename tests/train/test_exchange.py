"""A checkpoint of ours is that of plain Trainer to the bit, goes on in it without us, and one of it goes on here."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from tests.conftest import BIN, Cli, Tiny, losses
from tests.train.conftest import Train

SCRIPT = Path(__file__).with_name("plain_script.py")


def plain(tiny: Tiny, output: Path, steps: int, strategy: str, checkpoint: Path | None = None) -> dict[int, float]:
    """Run the script under torchrun; it must not have trainyard."""
    command = [
        str(BIN / "torchrun"), "--nproc-per-node=2", "--master-port=0", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0",
        str(SCRIPT), str(tiny.folder), str(output), str(steps), strategy, *([str(checkpoint)] if checkpoint else []),
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False, timeout=120
    )
    found = re.search(r"LOSSES (\{.*\})", done.stdout)
    assert found, done.stderr[-3000:]
    return {int(step): loss for step, loss in json.loads(found[1]).items()}


def tensors(folder: Path, scratch: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint of plain Trainer, by its file and its place there."""
    found: dict[str, Any] = {}
    for file in (each.relative_to(folder) for each in sorted(folder.rglob("*"))):
        if file.name == ".metadata":  # of torch.distributed.checkpoint: a folder for all ranks
            dcp_to_torch_save(folder / file.parent, scratch)
            found |= _flat(str(file.parent), torch.load(scratch, weights_only=False))
        elif file.suffix == ".safetensors":
            found |= _flat(str(file), safetensors.torch.load_file(folder / file))
        elif file.suffix in (".pt", ".bin", ".pth"):
            found |= _flat(str(file), torch.load(folder / file, weights_only=False))
    return found


def _flat(place: str, value: Any) -> dict[str, torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return {place: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return {name: leaf for key, each in items for name, leaf in _flat(f"{place} {key}", each).items()}


@pytest.mark.parametrize(
    "strategy",
    ["ddp", *(pytest.param(name, marks=pytest.mark.slow) for name in ("zero1", "zero2", "zero3", "fsdp"))],
)
def test_checkpoints_go_both_ways(
    tiny: Tiny, tmp_path: Path, train: Train, train_fsdp: Train, cli: Cli, strategy: str
) -> None:  # fmt: skip
    here = train_fsdp if strategy == "fsdp" else train
    unbroken = plain(tiny, tmp_path / "plain", 6, strategy)

    def script(steps: int) -> dict[str, object]:
        return {"path": str(SCRIPT), "args": [str(tiny.folder), str(tmp_path / "out"), str(steps), strategy]}

    ours = here(ranks=2, name="ours", script=script(3))
    assert ours.result.outcome == "Complete", ours
    assert losses(ours.run) == pytest.approx({step: unbroken[step] for step in (1, 2, 3)}, abs=1e-6)
    pulled = cli("ckpt", "pull", str(ours.run), "--as-trainer", "--to", str(tmp_path))
    assert pulled.returncode == 0, pulled.stderr
    made, saved = (
        tensors(folder, tmp_path / "scratch")
        for folder in (Path(pulled.stdout.strip()), tmp_path / "plain/checkpoint-3")
    )
    own = {f"loss_{rank}.pt {name}" for rank in range(2) for name in ("sum", "ahead before torch")}
    assert made.keys() - saved.keys() == own, "of losses that are to be logged, and of data that is fetched ahead"
    # Trainer with ZeRO-2 writes a tied weight twice.
    assert saved.keys() - made.keys() <= {"model.safetensors lm_head.weight"}
    assert [name for name in saved.keys() & made.keys() if not torch.equal(made[name], saved[name])] == []
    went_on = plain(tiny, tmp_path / "again", 6, strategy, Path(pulled.stdout.strip()))
    assert {step: went_on[step] for step in (4, 5, 6)} == pytest.approx(
        {step: unbroken[step] for step in (4, 5, 6)}, abs=1e-6
    )

    adopted = here(ranks=2, name="adopted", script=script(6), resumeFrom=str(tmp_path / "plain/checkpoint-3"))
    assert adopted.result.outcome == "Complete", adopted
    assert losses(adopted.run) == pytest.approx({step: unbroken[step] for step in (4, 5, 6)}, abs=1e-6)


def test_one_that_cannot_be_loaded_is_told_by_the_field_that_names_it(tiny: Tiny, tmp_path: Path, train: Train) -> None:
    spec = {"model": {"source": tiny.model("bert")}, "data": {"train": {"source": tiny.rows("classes")}}}
    made = train(name="made", **spec)
    copied = tmp_path / "checkpoint-3"
    shutil.copytree(max(made.run.glob("checkpoints/*")), copied, ignore=shutil.ignore_patterns("manifest.json"))
    os.truncate(copied / "model.safetensors", 100)
    adopted = train(name="adopted", resumeFrom=str(copied), **spec)
    assert adopted.result.outcome == "UserError", adopted
    assert adopted.result.message.startswith(f"spec.resumeFrom: {copied} cannot be loaded. Is it damaged"), adopted
