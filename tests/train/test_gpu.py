"""What only a GPU can show: copies that the device makes, NCCL, bf16. Skipped where there is none."""

import shutil
from pathlib import Path

import pytest
import torch

from tests.conftest import Cli, Tiny, losses, tiny_manifest
from tests.train.conftest import Train
from tests.train.test_strategies import ARGUMENTS, STRATEGIES
from trainyard.train.copier import Copier, Copy
from trainyard.train.slots import Buffer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

needs_nvcc = pytest.mark.skipif(not shutil.which("nvcc"), reason="DeepSpeed's AdamW for CPUs is built when it is used")
LONG = 500_000_000
"""Cycles of a GPU: about a third of a second."""
GPU = {"count": 1, "gpus": 1}
EXACT = {**ARGUMENTS, "lr_scheduler_type": "constant", "bf16": True, "full_determinism": True}


@pytest.fixture
def pinned(tmp_path: Path) -> torch.Tensor:
    """A staging buffer as training makes it in memory, of 256 MB."""
    buffer = Buffer(Path("/dev/shm") / f"trainyard-{tmp_path.name}")
    buffer.fit(256_000_000, pinned=True)
    buffer.path.unlink()
    assert buffer.bytes.is_pinned()
    return buffer.bytes[:256_000_000]


def test_the_next_step_waits_on_the_device_for_what_is_copied(pinned: torch.Tensor) -> None:
    copier, ends, source = Copier(), list[bool](), torch.zeros(64_000_000, device="cuda")
    for turn in range(1, 4):
        torch.cuda._sleep(LONG)  # the step before is not over when the save begins
        source.fill_(turn)
        copier.start([Copy(source, pinned)], ends.append)
        copier.release()
        source.fill_(-1)  # the optimizer's step
        copier.settle()
        assert torch.equal(pinned.view(torch.float32), torch.full((64_000_000,), float(turn)))
    assert ends == [True] * 3


def test_a_tensor_that_changes_while_the_device_copies_it_is_noticed(pinned: torch.Tensor) -> None:
    copier, ends, source = Copier(), list[bool](), torch.zeros(64_000_000, device="cuda")
    torch.cuda._sleep(LONG)
    copier.start([Copy(source, pinned)], ends.append)
    source.add_(1)
    copier.settle()
    assert ends == [False]


def test_a_copy_that_the_device_cannot_make_is_told_and_makes_no_checkpoint(pinned: torch.Tensor) -> None:
    copier, ends, source = Copier(), list[bool](), torch.zeros(1_000_000, device="cuda")
    copier.start([Copy(source, pinned[:4]), Copy(source, pinned[: source.nbytes])], ends.append)
    with pytest.raises(RuntimeError, match="shape"):
        copier.settle()
    assert True not in ends
    copier.start([Copy(source, pinned[: source.nbytes])], ends.append)
    copier.settle()
    assert ends[-1] is True


def test_memory_that_cannot_be_pinned_is_used_as_it_is(tmp_path: Path) -> None:
    """CUDA pins no pages of a disk's file, and would tell so again at the next thing that it is asked to do."""
    buffer, ends, source = Buffer(tmp_path / "buffer"), list[bool](), torch.arange(1_000_000.0, device="cuda")
    with pytest.warns(UserWarning, match="not pinned"):
        buffer.fit(source.nbytes, pinned=True)
    copier = Copier()
    copier.start([Copy(source, buffer.bytes[: source.nbytes])], ends.append)
    copier.settle()
    assert ends == [True]
    assert torch.equal(buffer.bytes[: source.nbytes].view(torch.float32), torch.arange(1_000_000.0))


def test_the_device_forgets_a_buffer_that_is_gone(tmp_path: Path) -> None:
    """As the first Trainer's of a script that makes two: the second's is likely to lie where it lay."""
    source, seen = torch.zeros(64_000_000, device="cuda"), set[int]()
    for turn in range(1, 5):
        buffer = Buffer(Path("/dev/shm") / f"trainyard-{tmp_path.name}")
        buffer.fit(source.nbytes, pinned=turn % 2 == 1)
        buffer.path.unlink()
        copier, ends = Copier(), list[bool]()
        copier.start([Copy(source.fill_(turn), buffer.bytes[: source.nbytes])], ends.append)
        copier.settle()
        assert ends == [True]
        assert torch.all(buffer.bytes[: source.nbytes].view(torch.float32) == turn)
        seen.add(buffer.bytes.data_ptr())
        del buffer, copier
    assert len(seen) < 4, "no address was used again: nothing is shown"


OFFLOAD = {"deepspeed": {"zeroStage": 2, "config": {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}}}


@pytest.mark.parametrize("strategy", [*STRATEGIES, "fsdp", pytest.param("offload", marks=needs_nvcc)])
def test_a_resumed_run_is_the_unbroken_one(tiny: Tiny, train: Train, strategy: str) -> None:
    def trained(name: str, steps: int) -> tuple[str, dict[int, float], str]:
        done = train(
            name=name, model={"source": tiny.model("gpt2")}, data={"train": {"source": tiny.rows("texts")}},
            task="text-generation", workers=GPU, strategy={**STRATEGIES, "fsdp": {"fsdp": {}}, "offload": OFFLOAD}[strategy],
            trainingArguments={**EXACT, "max_steps": steps},
        )  # fmt: skip
        return done.result.outcome, losses(done.run), done.log

    first, _, log = trained("broken", 3)
    assert first == "Complete", log
    second, resumed, log = trained("broken", 6)
    assert second == "Complete", log
    _, whole, _ = trained("whole", 6)
    assert set(whole) == {1, 2, 3, 4, 5, 6}
    assert resumed == whole


def test_a_job_runs_on_a_gpu(tiny: Tiny, cli: Cli, tmp_path: Path) -> None:
    arguments = {**ARGUMENTS, "bf16": True, "dataloader_num_workers": 1}
    file = tiny_manifest(tiny, tmp_path, workers=GPU, trainingArguments=arguments)
    done = cli("run", str(file))
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    predicted = cli("predict", "runs/job/final", "red cat runs")
    assert predicted.returncode == 0, predicted.stderr
