"""text-generation: what the model learns of each block, and where its text ends."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tests.conftest import Tiny, manifest
from trainyard.plan.labels import IGNORED, Labels
from trainyard.spec.manifest import loads
from trainyard.train import processor
from trainyard.train.choices import Choices
from trainyard.train.tasks import TABLE
from trainyard.train.tasks.base import Encoding

TASK = TABLE["text-generation"]


@pytest.fixture(params=["pad is end of text", "pad of its own"])
def tokenizer(request: pytest.FixtureRequest, tiny: Tiny, tmp_path: Path) -> PreTrainedTokenizerBase:
    loaded = AutoTokenizer.from_pretrained(tiny.model("gpt2"))
    if request.param == "pad is end of text":
        loaded.pad_token = None
    loaded.save_pretrained(tmp_path / "tokenizer")
    fields = {"source": str(tmp_path / "tokenizer")}
    spec = loads(json.dumps(manifest(task="text-generation", processor=fields))).job.spec
    return processor.load(spec, TASK, Choices())


def test_the_model_learns_to_stop(tokenizer: PreTrainedTokenizerBase) -> None:
    """As transformers' run_clm: labels are the tokens, also the end-of-text token; only padding is left out."""
    encoded = TASK.encode({"text": ["cat sun", "dog"]}, Encoding(tokenizer, {}, Labels(), block=5))
    features = [{name: column[index] for name, column in encoded.items()} for index in range(len(encoded["input_ids"]))]
    shorter = {name: column[:2] for name, column in features[0].items()}
    batch = TASK.collator(tokenizer, None)([features[0], shorter])
    assert tokenizer.eos_token_id in batch["labels"][0]
    assert torch.equal(batch["labels"][0], batch["input_ids"][0])
    assert batch["labels"][1].tolist() == [*batch["input_ids"][1, :2].tolist(), IGNORED, IGNORED, IGNORED]
