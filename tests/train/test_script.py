"""An unchanged script in a group of training processes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Tiny, losses
from tests.train.conftest import Train, Trained, trains_on
from trainyard.launch.node import Node

OWN = """
import sys
from dataclasses import dataclass
from pathlib import Path
from datasets import Dataset
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

@dataclass
class MyArguments(TrainingArguments):
    extra: int = 5

class Writes(TrainerCallback):
    def on_save(self, args, state, control, **kwargs):
        Path(args.output_dir, f"checkpoint-{state.global_step}", "own.txt").write_text("mine")

rows = Dataset.from_list([{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 16)
args = MyArguments("out", max_steps=3, save_steps=3, logging_steps=1, per_device_train_batch_size=2, report_to="none")
trainer = Trainer(AutoModelForCausalLM.from_pretrained(sys.argv[1]), args, train_dataset=rows)
trainer.add_callback(Writes())
trainer.train()
print("WORLD", args.world_size, type(trainer.model_wrapped).__name__, flush=True)
"""

LOOKS = """
import sys
from datasets import Dataset
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

rows = Dataset.from_list([{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 16)
args = TrainingArguments("out", max_steps=int(sys.argv[2]), save_steps=2, logging_steps=1, report_to="none", per_device_train_batch_size=2)
last = get_last_checkpoint("out") if Path("out").is_dir() else None
print("FOUND", last, flush=True)
model = AutoModelForCausalLM.from_pretrained(last or sys.argv[1])
Trainer(model, args, train_dataset=rows).train(resume_from_checkpoint=last)
""".replace("import sys\n", "import sys\nfrom pathlib import Path\n", 1)

ALONE = """
import os, sys
os.environ["WORLD_SIZE"] = "1"
from datasets import Dataset
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

rows = Dataset.from_list([{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 16)
for name in ("RANK", "LOCAL_RANK"):
    del os.environ[name]
args = TrainingArguments("out", max_steps=3, report_to="none")
os.environ["WORLD_SIZE"] = "2"
Trainer(AutoModelForCausalLM.from_pretrained(sys.argv[1]), args, train_dataset=rows).train()
"""


@pytest.fixture(scope="module")
def own(node: Node, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A script on two ranks: arguments of its own class, nothing said of CPUs, a callback that is added late."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "train.py").write_text(OWN)
    done = trains_on(node, folder)(2, code=str(folder), script={"path": "train.py", "args": [tiny.model("gpt2")]})
    assert done.result.outcome == "Complete", done.log
    return done


def test_a_script_joins_the_group_without_gpus(own: Trained) -> None:
    assert own.log.count("WORLD 2 DistributedDataParallel") == 2


def test_a_script_with_own_arguments_is_exported(own: Trained) -> None:
    assert (own.run / "final" / "model.safetensors").exists()
    assert not list((own.run / "final").glob("*.bin"))


def test_a_late_callbacks_file_is_in_the_checkpoint(own: Trained) -> None:
    (manifest,) = own.run.glob("checkpoints/*/manifest.json")
    assert "own.txt" in {entry["path"] for entry in json.loads(manifest.read_text())["files"]}


def test_a_trainer_outside_of_the_group_is_refused(train: Train, tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(ALONE)
    done = train(2, code=str(tmp_path), script={"path": "train.py", "args": [tiny.model("gpt2")]})
    assert done.result.outcome == "UserError"
    assert "takes part in a group of 1" in done.result.message


Looks = Callable[..., Trained]


@pytest.fixture
def looks(train: Train, tiny: Tiny, tmp_path: Path) -> Looks:
    """Runs a script that looks in its output_dir for a checkpoint: run's name, steps, fields of the spec."""
    (tmp_path / "train.py").write_text(LOOKS)

    def run(name: str, steps: int, **fields: str) -> Trained:
        script = {"path": "train.py", "args": [tiny.model("gpt2"), str(steps)]}
        done = train(name=name, code=str(tmp_path), script=script, **fields)
        assert done.result.outcome == "Complete", done.log
        return done

    return run


@pytest.mark.parametrize(
    ("name", "fields"), [("two", {}), ("one", {"resume": "Never"})], ids=["another name", "resume: Never"]
)
def test_another_run_in_the_folder_starts_from_scratch(
    looks: Looks, tmp_path: Path, name: str, fields: dict[str, str]
) -> None:
    looks("one", 2)
    assert (tmp_path / "out/checkpoint-2").is_dir()
    again = looks(name, 2, **fields)
    assert "FOUND None" in again.log
    assert set(losses(again.run)) == {1, 2}


def test_what_an_attempt_killed_before_its_first_commit_leaves_is_no_checkpoint(looks: Looks, tmp_path: Path) -> None:
    looks("one", 2)
    shutil.rmtree(tmp_path / "one")  # nothing of it has come into storage
    assert (tmp_path / "out/checkpoint-2").is_dir()
    again = looks("one", 2)
    assert "FOUND None" in again.log
    assert set(losses(again.run)) == {1, 2}


def test_a_resumed_script_finds_a_whole_checkpoint(looks: Looks) -> None:
    looks("one", 2)
    again = looks("one", 4)
    assert "checkpoint-2" in again.log.partition("FOUND ")[2].splitlines()[0]
    assert set(losses(again.run)) == {1, 2, 3, 4}
