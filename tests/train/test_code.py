"""Code of a user's own in a training process: a Trainer, and a script that fails."""

import json
from pathlib import Path

import pytest

from tests.conftest import Tiny, losses
from tests.train.conftest import Train

TRAINER = """
import torch
from transformers import Trainer

class Halved(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        return (loss * 0.5, outputs) if return_outputs else loss * 0.5

class Told(Trainer):
    def training_step(self, model, *args, **kwargs):
        print("trains", type(model).__name__, flush=True)
        return super().training_step(model, *args, **kwargs)

class Alone(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs["labels"] - 1  # of which -1 is nothing that the model's own loss takes
        logits = model(**{name: value for name, value in inputs.items() if name != "labels"}).logits
        print("items", num_items_in_batch, flush=True)
        loss = torch.nn.functional.cross_entropy(logits, labels, ignore_index=-1, reduction="sum") / num_items_in_batch
        return (loss, logits) if return_outputs else loss

def forgetful(callbacks, **kwargs):
    return Trainer(**kwargs)
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    """A folder of code."""
    (tmp_path / "own.py").write_text(TRAINER)
    return str(tmp_path)


def test_a_trainer_of_ones_own_trains(train: Train, tiny: Tiny, own: str) -> None:
    parts = {"model": {"source": tiny.model("bert")}, "data": {"train": {"source": tiny.rows("classes")}}}
    plain = train(name="plain", **parts)
    halved = train(name="halved", code=own, trainer={"entrypoint": "own:Halved"}, **parts)
    assert losses(halved.run)[1] == pytest.approx(losses(plain.run)[1] / 2)


def test_a_loss_of_ones_own_gets_the_labels_of_the_step(train: Train, tiny: Tiny, own: str) -> None:
    done = train(
        model={"source": tiny.model("bert")}, data={"train": {"source": tiny.rows("classes")}}, code=own,
        trainer={"entrypoint": "own:Alone"},
        trainingArguments={"max_steps": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    )  # fmt: skip
    assert done.result.outcome == "Complete", done.log
    assert done.log.count("items tensor(4") == 4, "once for each batch"


@pytest.mark.parametrize(("ranks", "kind"), [(1, "BertForSequenceClassification"), (2, "DistributedDataParallel")])
def test_a_process_of_its_own_holds_its_gradients_once(
    train: Train, tiny: Tiny, own: str, ranks: int, kind: str
) -> None:
    parts = {"model": {"source": tiny.model("bert")}, "data": {"train": {"source": tiny.rows("classes")}}}
    done = train(ranks, code=own, trainer={"entrypoint": "own:Told"}, **parts)
    assert done.result.outcome == "Complete", done.log
    assert f"trains {kind}" in done.log


@pytest.mark.parametrize(
    ("entrypoint", "words"),
    [
        ("own:forgetful", "with the callbacks that it was given"),
        ("own:missing", "has no attribute 'missing'"),
        ("elsewhere:Halved", "No module named 'elsewhere'. It is looked for in spec.code"),
    ],
    ids=["drops the callbacks", "no such name", "no such module"],
)
def test_an_entrypoint_that_cannot_be_used_is_told(
    train: Train, tiny: Tiny, own: str, entrypoint: str, words: str
) -> None:
    data = {"train": {"source": tiny.rows("classes")}}
    done = train(model={"source": tiny.model("bert")}, data=data, code=own, trainer={"entrypoint": entrypoint})
    assert done.result.outcome == "UserError"
    assert words in done.result.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import helper\n", "the sky is falling"),
        ("import sys\nsys.exit(3)\n", "train.py ended with exit code 3"),
    ],
    ids=["raises", "exits"],
)
def test_a_script_that_fails_is_told_with_its_words(train: Train, own: str, text: str, words: str) -> None:
    (Path(own) / "train.py").write_text(text)
    (Path(own) / "helper.py").write_text("raise RuntimeError('the sky is falling')\n")
    done = train(code=own, script={"path": "train.py"})
    assert done.result.outcome == "UserError"
    assert words in done.result.message


TWICE = """
import sys
from datasets import Dataset
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

rows = Dataset.from_list([{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 8)
args = TrainingArguments(
    "out", max_steps=3, save_steps=3, logging_steps=1, per_device_train_batch_size=1, report_to="none", use_cpu=True,
    disable_tqdm=True, dataloader_pin_memory=False,
)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
Trainer(model, args, train_dataset=rows).train()
other = Trainer(model, args, train_dataset=rows, eval_dataset=rows)
other.evaluate()
if "twice" in sys.argv:
    other.train()
"""


def test_a_script_may_evaluate_what_it_trained_with_a_second_trainer_and_not_train_it(
    train: Train, own: str, tiny: Tiny
) -> None:
    (Path(own) / "train.py").write_text(TWICE)
    once = train(name="once", code=own, script={"path": "train.py", "args": [tiny.model("gpt2")]})
    assert once.result.outcome == "Complete", once.log
    assert set(losses(once.run)) == {1, 2, 3}, "the rows of the first stay"
    twice = train(name="twice", code=own, script={"path": "train.py", "args": [tiny.model("gpt2"), "twice"]})
    assert twice.result.outcome == "UserError"
    assert "Make each training a job of its own" in twice.result.message


@pytest.mark.parametrize(
    ("ranks", "size", "words"),
    [
        (2, 2, "per_device_train_batch_size × gradient_accumulation_steps be 1 in the script"),
        (3, 1, "3 processes cannot share them; these can: 1, 2"),
    ],
    ids=["twice the batch", "no equal parts"],
)
def test_a_script_goes_on_with_the_batch_of_its_checkpoint(
    train: Train, own: str, tiny: Tiny, ranks: int, size: int, words: str
) -> None:
    text = TWICE.replace("per_device_train_batch_size=1", "per_device_train_batch_size=int(sys.argv[2])")
    (Path(own) / "train.py").write_text(text.replace("max_steps=3", "max_steps=int(sys.argv[3])"))

    def script(size: int, steps: int) -> dict[str, object]:
        return {"code": own, "script": {"path": "train.py", "args": [tiny.model("gpt2"), str(size), str(steps)]}}

    assert train(**script(2, 3)).result.outcome == "Complete"
    again = train(ranks, **script(size, 6))
    assert again.result.outcome == "UserError"
    assert "was written with 2 samples a step" in again.result.message
    assert words in again.result.message
    if ranks == 2:
        assert train(ranks, **script(1, 6)).result.outcome == "Complete"


def test_a_script_imports_from_the_pythonpath_that_it_is_given(train: Train, own: str, tmp_path: Path) -> None:
    (Path(own) / "train.py").write_text("import elsewhere\nopen('seen', 'w').write(elsewhere.WORD)\n")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/elsewhere.py").write_text("WORD = 'found'\n")
    done = train(code=own, script={"path": "train.py", "env": {"PYTHONPATH": str(tmp_path / "lib")}})
    assert done.result.outcome == "Complete", done.log
    assert (Path(own) / "seen").read_text() == "found"


CLASSIFIES = """
import sys
from datasets import Dataset
from transformers import BertForSequenceClassification, Trainer, TrainingArguments, set_seed

set_seed(0)
rows = Dataset.from_list([{"input_ids": [2, 5 + row, 6 + row % 3, 3], "labels": row % 3} for row in range(8)])
args = TrainingArguments(
    "out", max_steps=1, save_strategy="no", logging_steps=1, per_device_train_batch_size=int(sys.argv[2]),
    report_to="none", disable_tqdm=True, dataloader_pin_memory=False,
)
without_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
model = BertForSequenceClassification.from_pretrained(sys.argv[1], num_labels=3, **without_dropout)
Trainer(model, args, train_dataset=rows).train()
"""


def test_the_loss_of_a_script_does_not_depend_on_its_ranks(train: Train, own: str, tiny: Tiny) -> None:
    (Path(own) / "train.py").write_text(CLASSIFIES)
    found = {}
    for ranks in (1, 2):
        script = {"path": "train.py", "args": [tiny.model("bert"), str(4 // ranks)]}
        done = train(ranks, name=f"of-{ranks}", code=own, script=script)
        assert done.result.outcome == "Complete", done.log
        found[ranks] = losses(done.run)
    assert found[2] == pytest.approx(found[1], rel=1e-4)


def test_a_script_that_ends_without_a_trainer_is_complete(train: Train, own: str) -> None:
    (Path(own) / "train.py").write_text("import json, sys\njson.dump(sys.argv, open('seen.json', 'w'))\n")
    done = train(code=own, script={"path": "train.py", "args": ["--steps", "3"]})
    assert done.result.outcome == "Complete"
    assert json.loads((Path(own) / "seen.json").read_text()) == ["train.py", "--steps", "3"]
