"""What validate says of model and processor is what transformers does, and model.load reaches from_pretrained."""

from typing import Any

import pytest
import torch
import transformers
from transformers import AutoTokenizer

from tests.conftest import Tiny, manifest
from trainyard.spec import library
from trainyard.spec.manifest import validate
from trainyard.train import model
from trainyard.train.choices import Choices
from trainyard.train.tasks import TABLE

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 50}


@pytest.mark.parametrize(
    "config",
    [
        transformers.BertConfig(**SIZES, max_position_embeddings=12),
        transformers.RobertaConfig(**SIZES, max_position_embeddings=12, pad_token_id=1),
        transformers.GPT2Config(vocab_size=50, n_positions=12, n_embd=16, n_layer=1, n_head=2),
        transformers.DistilBertConfig(
            vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=16, max_position_embeddings=12
        ),
    ],
    ids=lambda config: config.model_type,
)
def test_longer_row_than_positions_is_an_index_error(config: transformers.PretrainedConfig) -> None:
    positions = library.positions(config.model_type)
    assert positions is not None
    longest = positions.longest_row(config.to_dict())
    net = transformers.AutoModel.from_config(config)
    ids = torch.full((1, longest + 1), 5)
    net(input_ids=ids[:, :longest])
    with pytest.raises((IndexError, RuntimeError)):
        net(input_ids=ids)


def test_rotary_model_takes_longer_rows() -> None:
    config = transformers.LlamaConfig(**SIZES, max_position_embeddings=12)
    assert library.positions("llama") is None
    transformers.AutoModel.from_config(config)(input_ids=torch.full((1, 20), 5))


def test_tokenizer_drops_keyword_that_it_does_not_know(tiny: Tiny) -> None:
    """The reason why validate must say it."""
    tokenizer = AutoTokenizer.from_pretrained(tiny.model("bert"))
    known = library.call_keywords("AutoTokenizer")
    assert known is not None
    assert "max_len" not in known
    text = "red green cat dog"
    assert tokenizer(text, max_len=3)["input_ids"] == tokenizer(text)["input_ids"]


def loaded(tiny: Tiny, **fields: Any) -> transformers.PreTrainedModel:
    job, problems = validate(manifest(model={"source": tiny.model("bert"), **fields}))
    assert job is not None, problems
    config = transformers.AutoConfig.from_pretrained(tiny.model("bert"), num_labels=2)
    return model.load(job.spec, TABLE["text-classification"], config, Choices())


@pytest.mark.parametrize("scratch", [False, True], ids=["weights", "from config"])
def test_load_arguments_are_passed_on(tiny: Tiny, scratch: bool) -> None:
    net = loaded(tiny, fromConfig=scratch, load={"attn_implementation": "eager", "dtype": "bfloat16"})
    assert net.config._attn_implementation == "eager"
    assert net.dtype == torch.bfloat16
    assert loaded(tiny, fromConfig=scratch).dtype == torch.float32


def test_every_argument_of_from_pretrained_is_known() -> None:
    import inspect

    signature = inspect.signature(transformers.PreTrainedModel.from_pretrained).parameters
    assert {"attn_implementation", "dtype", "use_kernels"} <= set(library.names("load"))
    assert {"config", "revision", "token"} <= set(signature) & set(library.names("load"))
    assert set(library.names("load_from_config")) <= set(library.names("load"))
