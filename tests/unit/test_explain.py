"""explain says of an argument what validate would answer."""

import pytest

from tests.conftest import Cli
from trainyard.spec.answers import CANNOT_WORK, OWNED, REMOVED
from trainyard.spec.fields import explain


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("trainingArguments.logging_dir", "TENSORBOARD_LOGGING_DIR"),
        ("trainingArguments.group_by_length", "write train_sampling_strategy: group_by_length"),
        ("spec.trainingArguments.warmup_ratio", "write warmup_steps: … (below 1 it is a ratio)"),
        ("trainingArguments.do_train", "a TrainerJob always trains"),
        ("trainingArguments.push_to_hub", "hf upload"),
        ("evaluation_strategy", "write eval_strategy: …"),
    ],
)
def test_explain_says_what_validate_knows(field: str, words: str) -> None:
    explained = explain(field)
    assert explained is not None
    assert words in explained[0].help


@pytest.mark.parametrize("name", [*REMOVED, *OWNED, *CANNOT_WORK])
def test_every_answered_argument_is_explained(name: str) -> None:
    explained = explain(f"trainingArguments.{name}")
    assert explained is not None
    assert explained[0].help


def test_explain_finds_near_argument(cli: Cli) -> None:
    done = cli("explain", "trainingArguments.learnin_rate")
    assert done.returncode == 4
    assert "Did you mean trainingArguments.learning_rate?" in done.stderr
