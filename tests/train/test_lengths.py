"""Rows, tokens and models that fit together, before the first step: lengths, embeddings, special tokens, calls."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModel, AutoTokenizer, PreTrainedModel

from tests.conftest import Tiny, losses, manifest
from tests.train.conftest import Train
from trainyard.errors import JobError
from trainyard.plan.facts import gather
from trainyard.plan.notes import notes
from trainyard.plan.plan import plan
from trainyard.spec.manifest import loads
from trainyard.train import embeddings, processor
from trainyard.train.choices import Choices
from trainyard.train.data.lengths import positions
from trainyard.train.tasks import TABLE

LONG = " ".join(["cat"] * 100)
ARGUMENTS = {"max_steps": 1, "per_device_train_batch_size": 2, "save_strategy": "no"}


def rows(folder: Path, *texts: str) -> str:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": text, "label": str(i % 2)}) + "\n" for i, text in enumerate(texts)))
    return str(file)


def loaded(model: str, task: str = "text-classification", **processor_fields: Any) -> tuple[Any, Choices]:
    choices = Choices()
    spec = loads(json.dumps(manifest(task=task, model={"source": model}, processor=processor_fields))).job.spec
    return processor.load(spec, TABLE[task], choices), choices


@pytest.mark.parametrize("call", [{}, {"max_length": 90, "truncation": True}], ids=["no-truncation", "above-the-model"])
def test_a_row_longer_than_the_model_is_named(tiny: Tiny, train: Train, tmp_path: Path, call: dict[str, Any]) -> None:
    source = rows(tmp_path, "cat sun", LONG, "dog")
    done = train(model={"source": tiny.model("bert")}, processor={"call": call}, data={"train": {"source": source}})
    assert done.result.outcome == "UserError"
    longest = call.get("max_length", 102)
    assert done.result.message == (
        f"spec.data.train: row 2 has {longest} tokens, and the model has positions for 64. "
        "Write processor.call: {max_length: 64, truncation: true}, or shorten the row"
    )


def test_blocks_longer_than_the_model_are_refused(tiny: Tiny, train: Train) -> None:
    done = train(
        task="text-generation",
        model={"source": tiny.model("gpt2")},
        processor={"call": {"max_length": 128}},
        data={"train": {"source": tiny.rows("texts")}},
    )
    assert done.result.outcome == "UserError"
    assert "blocks have 128 tokens, and the model has positions for 64" in done.result.message
    assert "Write processor.call: {max_length: 64}" in done.result.message


def test_truncated_rows_train_and_say_so(tiny: Tiny, train: Train, tmp_path: Path) -> None:
    source = rows(tmp_path, "cat sun", LONG, "dog")
    call = {"max_length": 32, "truncation": True}
    done = train(
        model={"source": tiny.model("bert")}, processor={"call": call}, data={"train": {"source": source}},
        trainingArguments=ARGUMENTS,
    )  # fmt: skip
    assert done.result.outcome == "Complete", done.log
    assert "32 tokens: cut by processor.call; the model takes 64" in (done.run / "final/README.md").read_text()


def test_rows_are_encoded_again_for_another_limit_of_the_tokenizer(tiny: Tiny, train: Train, tmp_path: Path) -> None:
    parts = {
        "model": {"source": tiny.model("bert")}, "data": {"train": {"source": rows(tmp_path, "cat sun", LONG, "dog")}},
        "trainingArguments": ARGUMENTS,
    }  # fmt: skip
    for limit in (16, 24):
        of_tokenizer = {"load": {"model_max_length": limit}, "call": {"truncation": True}}
        done = train(name=f"limit-{limit}", processor=of_tokenizer, **parts)
        assert done.result.outcome == "Complete", done.log
        assert f"{limit} tokens" in (done.run / "final/README.md").read_text()


SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 20}
MODELS: dict[str, tuple[str, dict[str, Any], int | None]] = {
    "BERT": ("bert", {**SIZES, "max_position_embeddings": 40}, 40),
    "RoBERTa": ("roberta", {**SIZES, "max_position_embeddings": 40, "pad_token_id": 1}, 38),
    "GPT-2": ("gpt2", {"n_positions": 40, "n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 20}, 40),
    "OPT": ("opt", {**SIZES, "max_position_embeddings": 40, "ffn_dim": 16, "word_embed_proj_dim": 16}, 40),
    "DistilBERT": ("distilbert", {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16, "max_position_embeddings": 40, "vocab_size": 20}, 40),
    "Llama": ("llama", {**SIZES, "max_position_embeddings": 40}, None),
    "BLOOM": ("bloom", {"hidden_size": 16, "n_layer": 1, "n_head": 2, "vocab_size": 20}, None),
    "T5": ("t5", {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 20}, None),
}  # fmt: skip


def tiny_model(name: str) -> PreTrainedModel:
    model_type, fields, _ = MODELS[name]
    return AutoModel.from_config(transformers.AutoConfig.for_model(model_type, **fields)).eval()


@pytest.mark.parametrize("name", MODELS)
def test_positions_are_what_the_model_can_take(name: str) -> None:
    model, limit = tiny_model(name), MODELS[name][2]
    assert positions(model) == limit
    inputs = {"input_ids": torch.full((1, limit or 80), 5)}
    if name == "T5":
        inputs["decoder_input_ids"] = inputs["input_ids"]
    model(**inputs)  # a row of this length works
    if limit is not None:
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, limit + 1), 5))


@pytest.mark.parametrize(
    ("ranks", "strategy"), [(1, {"ddp": {}}), (2, {"deepspeed": {"zeroStage": 3}})], ids=["ddp", "zero3"]
)
def test_added_tokens_get_embeddings(
    tiny: Tiny, train: Train, tmp_path: Path, ranks: int, strategy: dict[str, Any]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny.model("bert"))
    tokenizer.add_tokens(["seoul", "busan"])
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    source = rows(tmp_path, "cat seoul", "busan", "dog")
    parts = {
        "model": {"source": tiny.model("bert")}, "processor": {"source": str(tmp_path / "tokenizer")},
        "data": {"train": {"source": source}}, "trainingArguments": ARGUMENTS, "strategy": strategy,
    }  # fmt: skip
    done = train(ranks, **parts)
    assert done.result.outcome == "Complete", done.log
    config = json.loads((done.run / "final/config.json").read_text())
    assert config["vocab_size"] == len(tokenizer) == 19
    card = (done.run / "final/README.md").read_text()
    assert "19 rows: the tokenizer has 19 tokens, and the model had 17 embeddings" in card
    job = loads(json.dumps(manifest(**parts))).job
    assert notes(plan(job, gather(job.spec)))["embeddings"] in card


def test_more_embeddings_than_tokens_stay(tiny: Tiny) -> None:
    encoder, choices = loaded(tiny.model("bert"))
    model = tiny_model("BERT")
    embeddings.fit(model, encoder, choices)
    assert model.get_input_embeddings().num_embeddings == 20
    assert choices.notes() == {}


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_a_plan_says_nothing_of_embeddings_that_are_there(tiny: Tiny, name: str) -> None:
    job = loads(json.dumps(manifest(model={"source": tiny.model(name)}))).job
    assert gather(job.spec).embeddings is None


@pytest.fixture
def bare(tiny: Tiny, tmp_path: Path) -> Path:
    """GPT-2 with a tokenizer that has no special token at all."""
    tokenizer = AutoTokenizer.from_pretrained(tiny.model("gpt2"))
    for name in ("pad_token", "eos_token", "bos_token", "mask_token", "cls_token", "sep_token"):
        setattr(tokenizer, name, None)
    AutoModel.from_pretrained(tiny.model("gpt2")).save_pretrained(tmp_path / "bare")
    tokenizer.save_pretrained(tmp_path / "bare")
    return tmp_path / "bare"


@pytest.mark.parametrize(
    ("task", "fix"),
    [("text-classification", "processor.load: {pad_token: <pad>}"), ("fill-mask", "processor.load: {mask_token: <mask>}")],
)  # fmt: skip
def test_a_missing_special_token_names_the_fix(bare: Path, task: str, fix: str) -> None:
    with pytest.raises(JobError) as caught:
        loaded(str(bare), task)
    assert fix in str(caught.value)


def test_special_tokens_are_added_by_the_manifest(bare: Path, train: Train, tmp_path: Path) -> None:
    done = train(
        task="fill-mask", model={"source": str(bare), "class": "GPT2LMHeadModel"},
        processor={"load": {"pad_token": "<pad>", "mask_token": "<mask>"}},
        data={"train": {"source": rows(tmp_path, "cat sun dog", "moon")}}, trainingArguments=ARGUMENTS,
    )  # fmt: skip
    assert done.result.outcome == "Complete", done.log
    assert json.loads((done.run / "final/config.json").read_text())["vocab_size"] == 19


def test_the_end_of_text_token_pads_where_there_is_no_other(tiny: Tiny, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny.model("gpt2"))
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    encoder, choices = loaded(str(tmp_path / "tokenizer"), "text-generation")
    assert encoder.pad_token == encoder.eos_token
    assert "its end-of-text token pads" in choices.notes()["pad token"]


@pytest.mark.parametrize(
    ("model", "task", "call", "message"),
    [
        ("bert", "text-classification", {"max_len": 32}, "spec.processor.call.max_len: "),
        ("bert", "text-classification", {"trunction": True}, "Did you mean truncation?"),
        ("vit", "image-classification", {"do_resise": False}, "Did you mean do_resize?"),
    ],
)  # fmt: skip
def test_an_argument_that_would_be_dropped_is_refused(
    tiny: Tiny, model: str, task: str, call: dict[str, Any], message: str
) -> None:
    with pytest.raises(JobError) as caught:
        loaded(tiny.model(model), task, call=call)
    assert message in str(caught.value)
    if "max_len" in call:
        assert "Did you mean max_length?" in str(caught.value)


def test_every_argument_of_the_call_is_taken(tiny: Tiny) -> None:
    loaded(tiny.model("bert"), call={"max_length": 8, "truncation": True, "add_special_tokens": False, "stride": 0})
    loaded(tiny.model("vit"), "image-classification", call={"do_resize": True, "do_normalize": False})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": [], "tags": []}, "spec.data.train: row 2 has no tokens: leave it out"),
        ({"tokens": [" "], "tags": ["O"]}, "spec.data.train: row 2 has no label on any of its tokens. Leave it out"),
        ({"tokens": ["cat"], "tags": [None]}, "spec.data.train: row 2: a tag is null; write O for a word that is no entity"),
    ],
    ids=["no-words", "no-tokens", "null"],
)  # fmt: skip
def test_a_row_without_tags_is_named(tiny: Tiny, train: Train, tmp_path: Path, row: Any, message: str) -> None:
    good = {"tokens": ["cat", "sun"], "tags": ["B-X", "O"]}
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(each) + "\n" for each in (good, row, good)))
    done = train(
        task="token-classification", model={"source": tiny.model("bert")},
        data={"train": {"source": str(tmp_path / "rows.jsonl")}},
        trainingArguments={**ARGUMENTS, "per_device_train_batch_size": 1},
    )  # fmt: skip
    assert done.result.outcome == "UserError"
    assert done.result.message == message


@pytest.mark.parametrize("text", ["cat", ""], ids=["one token", "no token"])
def test_texts_too_short_for_a_mask_train_all_the_same(tiny: Tiny, train: Train, tmp_path: Path, text: str) -> None:
    """A share of 0.15 of one token is often none, and the mean loss over no label is nan."""
    source = rows(tmp_path, *8 * [text])
    done = train(
        task="fill-mask", model={"source": tiny.model("bert")}, data={"train": {"source": source}},
        trainingArguments={"max_steps": 8, "per_device_train_batch_size": 1, "logging_steps": 1, "save_strategy": "no"},
    )  # fmt: skip
    assert done.result.outcome == "Complete", done.log
    assert all(math.isfinite(loss) for loss in losses(done.run).values())
