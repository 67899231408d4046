"""A run goes on with another number of processes: the same samples at every step, and the state of before."""

import pytest

from tests.conftest import Tiny, losses, train_loss
from tests.train.conftest import Train

ARGUMENTS = {
    "max_steps": 3,
    "per_device_train_batch_size": 4,
    "logging_steps": 1,
    "save_steps": 3,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
}
STRATEGIES = {"ddp": {"ddp": {}}, **{f"zero{stage}": {"deepspeed": {"zeroStage": stage}} for stage in (1, 2, 3)}}


@pytest.mark.parametrize(
    ("strategy", "before", "after", "batch"),
    [
        pytest.param("ddp", 2, 1, (4, 2), id="ddp-2-1"),
        pytest.param("ddp", 1, 2, (2, 1), id="ddp-1-2"),
        pytest.param("zero1", 2, 1, (4, 2), id="zero1-2-1", marks=pytest.mark.slow),
        pytest.param("zero2", 2, 1, (4, 2), id="zero2-2-1", marks=pytest.mark.slow),
        pytest.param("zero3", 2, 1, (4, 2), id="zero3-2-1"),
        pytest.param("zero2", 1, 2, (2, 1), id="zero2-1-2"),
    ],
)
def test_another_number_of_processes_goes_on_with_the_same_samples(
    tiny: Tiny, train: Train, strategy: str, before: int, after: int, batch: tuple[int, int]
) -> None:
    # Without dropout, the loss of a step tells which samples it saw and from which weights it started.
    plain = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.0}
    spec = {
        "model": {"source": tiny.model("bert"), "config": plain},
        "data": {"train": {"source": tiny.rows("classes")}},
        "strategy": STRATEGIES[strategy],
        "trainingArguments": ARGUMENTS,
    }
    first = train(ranks=before, name="broken", **spec)
    per_device, accumulation = batch
    longer = {
        **ARGUMENTS, "max_steps": 7, "per_device_train_batch_size": per_device,
        "gradient_accumulation_steps": accumulation,
    }  # fmt: skip
    second = train(ranks=after, name="broken", **{**spec, "trainingArguments": longer})
    assert (first.result.outcome, second.result.outcome) == ("Complete", "Complete"), (first.result, second)
    whole = train(ranks=before, name="whole", **{**spec, "trainingArguments": {**ARGUMENTS, "max_steps": 7}})
    assert losses(second.run) == pytest.approx(losses(whole.run), abs=1e-3)
    assert train_loss(second.run) == pytest.approx(train_loss(whole.run), abs=1e-3)
