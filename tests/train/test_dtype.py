"""Weights are trained in float32 and exported in the dtype that they came in."""

import json
from pathlib import Path

import pytest

from tests.conftest import Tiny
from tests.train.conftest import Train, Trained, trains_on
from trainyard.launch.node import Node

ARGUMENTS = {
    "max_steps": 4,
    "per_device_train_batch_size": 4,
    "logging_steps": 1,
    "save_steps": 4,
    "learning_rate": 1e-6,
}


@pytest.fixture(scope="module")
def halves(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama stored in bfloat16, with tied embeddings."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("halves")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=17, max_position_embeddings=64, tie_word_embeddings=True, **sizes)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    PreTrainedTokenizerFast.from_pretrained(tiny.model("gpt2")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(halves: Path, node: Node, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Four steps with a rate that bfloat16 would round away."""
    done = trains_on(node, tmp_path_factory.mktemp("trained"))(
        task="text-generation", model={"source": str(halves)}, processor={"call": {"max_length": 16}},
        data={"train": {"source": tiny.rows("texts")}}, trainingArguments=ARGUMENTS,
    )  # fmt: skip
    assert done.result.outcome == "Complete", done.log
    return done


def test_small_updates_change_most_weights(trained: Trained, halves: Path) -> None:
    from safetensors.torch import load_file

    (checkpoint,) = trained.run.glob("checkpoints/*-00001")
    before, after = load_file(halves / "model.safetensors"), load_file(checkpoint / "model.safetensors")
    changed = sum(int((after[name] != tensor.float()).sum()) for name, tensor in before.items())
    assert {str(tensor.dtype) for tensor in after.values()} == {"torch.float32"}
    assert changed > 0.9 * sum(tensor.numel() for tensor in before.values())


def test_moments_of_adam_are_float32(trained: Trained) -> None:
    from safetensors.torch import load_file

    (file,) = trained.run.glob("checkpoints/*-00001/optimizer.pt.safetensors")
    moments = [tensor for tensor in load_file(file).values() if tensor.dim() > 1]
    assert {str(tensor.dtype) for tensor in moments} == {"torch.float32"}


def test_the_exported_model_has_its_own_dtype(trained: Trained, halves: Path) -> None:
    from safetensors.torch import load_file

    exported = load_file(trained.run / "final" / "model.safetensors")
    assert {str(tensor.dtype) for tensor in exported.values()} == {"torch.bfloat16"}
    assert exported.keys() == load_file(halves / "model.safetensors").keys(), "tied embeddings stay tied"
    assert json.loads((trained.run / "final" / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_written_dtype_is_kept(halves: Path, train: Train, tiny: Tiny) -> None:
    from safetensors.torch import load_file

    done = train(
        task="text-generation", model={"source": str(halves), "load": {"dtype": "bfloat16"}},
        processor={"call": {"max_length": 16}}, data={"train": {"source": tiny.rows("texts")}}, trainingArguments=ARGUMENTS,
    )  # fmt: skip
    assert done.result.outcome == "Complete", done.log
    (checkpoint,) = done.run.glob("checkpoints/*-00001")
    assert {str(t.dtype) for t in load_file(checkpoint / "model.safetensors").values()} == {"torch.bfloat16"}
