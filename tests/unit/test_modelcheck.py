"""What model and processor would refuse or drop is said before they are loaded."""

import json
from pathlib import Path

import pytest

from tests.conftest import manifest
from trainyard.plan import modelcheck
from trainyard.spec.manifest import loads
from trainyard.spec.model import Spec


def spec_of(**changes: object) -> Spec:
    return loads(json.dumps(manifest(**changes))).job.spec


@pytest.mark.parametrize(
    ("task", "call", "words"),
    [
        ("text-classification", {"max_len": 32}, "Did you mean max_length?"),
        ("text-classification", {"return_tensors": "pt"}, "set by trainyard"),
        ("fill-mask", {"return_special_tokens_mask": True}, "set by trainyard"),
        ("image-classification", {"sise": 3}, "Did you mean size?"),
    ],
)
def test_unknown_keyword_of_call_is_told(task: str, call: dict[str, object], words: str) -> None:
    (problem,) = modelcheck.call_keywords(spec_of(task=task, processor={"call": call}))
    assert problem.path == ("spec", "processor", "call", *call)
    assert words in problem.message


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"id2label": {"neg": 0, "pos": 1}}, "it maps ids to names: {0: neg, 1: pos}"),
        ({"id2label": ["neg", "pos"]}, "it maps ids to names: {0: neg, 1: pos}"),
        ({"label2id": {0: "neg"}}, "it maps names to ids: {neg: 0, pos: 1}"),
        ({"num_labels": "3"}, "'3' is no whole number"),
    ],
    ids=["swapped", "a list", "names swapped", "a word"],
)
def test_labels_of_the_wrong_form_are_told(config: dict[str, object], message: str) -> None:
    (problem,) = modelcheck.label_fields(spec_of(model={"source": "hub/model", "config": config}))
    assert problem.path == ("spec", "model", "config", *config)
    assert problem.message == message


@pytest.mark.parametrize(
    "config",
    [{"id2label": {0: "neg", "1": "pos"}}, {"label2id": {"neg": 0, "pos": "1"}, "num_labels": 2}],
    ids=["ids", "names"],
)
def test_labels_of_the_right_form_pass(config: dict[str, object]) -> None:
    assert list(modelcheck.label_fields(spec_of(model={"source": "hub/model", "config": config}))) == []


@pytest.mark.parametrize(
    "processor",
    [
        {"call": {"max_length": 32, "truncation": True, "add_special_tokens": False}},
        {"class": "LayoutLMTokenizer", "call": {"boxes": []}},
    ],
    ids=["known", "class of its own"],
)
def test_known_keyword_of_call_passes(processor: dict[str, object]) -> None:
    assert list(modelcheck.call_keywords(spec_of(processor=processor))) == []


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"load": {"atn_implementation": "sdpa"}}, "Did you mean attn_implementation?"),
        ({"load": {"torch_dtype": "float32"}}, "write dtype"),
        ({"load": {"dtype": "fp32"}}, "'fp32' is none of auto, float32"),
        ({"load": {"device_map": "auto"}}, "the Trainer places the model"),
        ({"load": {"revision": "main"}}, "write spec.model.revision"),
        ({"fromConfig": True, "load": {"variant": "fp16"}}, "from_config has no such argument"),
    ],
    ids=lambda value: next(iter(value["load"])) if isinstance(value, dict) else "",
)
def test_argument_that_load_cannot_have_is_told(model: dict[str, object], words: str) -> None:
    (problem,) = modelcheck.load_arguments(spec_of(model={"source": "./m", **model}))
    assert words in problem.message


def test_arguments_of_from_pretrained_pass() -> None:
    model = {"source": "./m", "load": {"attn_implementation": "sdpa", "dtype": "bfloat16"}}
    assert list(modelcheck.load_arguments(spec_of(model=model))) == []
    assert list(modelcheck.load_arguments(spec_of(model={**model, "fromConfig": True}))) == []


def test_argument_of_from_pretrained_is_no_config_field() -> None:
    spec = spec_of(model={"source": "./m", "config": {"attn_implementation": "eager", "hidden_dropout_prob": 0.1}})
    (problem,) = modelcheck.config_fields(spec)
    assert problem.path == ("spec", "model", "config", "attn_implementation")
    assert "write spec.model.load: {attn_implementation: eager}" in problem.message


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({"model_type": "bert", "max_position_embeddings": 64}, 64),
        ({"model_type": "gpt2", "n_positions": 32}, 32),
        ({"model_type": "gpt2"}, 1024),
        ({"model_type": "roberta", "max_position_embeddings": 66, "pad_token_id": 1}, 64),
        ({"model_type": "llama", "max_position_embeddings": 64}, None),
    ],
    ids=["bert", "gpt2", "default", "roberta", "rotary"],
)
def test_rows_are_no_longer_than_positions(tmp_path: Path, config: dict[str, object], longest: int | None) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))

    def answer(length: int) -> list[str]:
        spec = spec_of(model={"source": str(tmp_path)}, processor={"call": {"max_length": length, "truncation": True}})
        return [problem.message for problem in modelcheck.row_length(spec)]

    if longest is None:
        assert answer(100_000) == []
        return
    assert answer(longest) == []
    assert answer(longest + 1) == [
        f"{longest + 1} tokens, and the model has positions for {longest}: write max_length: {longest}"
    ]


@pytest.mark.parametrize(
    ("tokenizer", "words"),
    [
        ({"model_max_length": 512}, "cuts at 512, and the model has positions for 64: write max_length: 64"),
        ({"model_max_length": 10**30}, "cuts nowhere"),
        ({"model_type": "bert"}, "cuts nowhere"),
        ({"model_max_length": 64}, ""),
    ],
    ids=["longer", "huge", "unknown", "fits"],
)
def test_truncation_where_tokenizer_says_is_a_doubt(tmp_path: Path, tokenizer: dict[str, object], words: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "max_position_embeddings": 64}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    answer = list(
        modelcheck.truncation(spec_of(model={"source": str(tmp_path)}, processor={"call": {"truncation": True}}))
    )
    assert len(answer) == bool(words)
    assert words in "".join(answer)
