"""Each task trains, evaluates and exports on a tiny model, and pipeline() uses the result."""

import json
from pathlib import Path

import pytest

from tests.conftest import Tiny
from tests.train.conftest import Train

EVALUATION = {"fraction": 0.25, "seed": 1}
TASKS = {
    "classes": ("text-classification", "bert", "classes", {}, "eval_accuracy"),
    "pairs": ("text-classification", "bert", "pairs", {}, "eval_accuracy"),
    "regression": ("text-classification", "bert", "scores", {}, "eval_r2"),
    "multi-label": ("text-classification", "bert", "topics", {}, "eval_f1"),
    "tags": ("token-classification", "bert", "tags", {}, "eval_f1"),
    "masks": ("fill-mask", "bert", "texts", {}, "eval_accuracy"),
    "text": ("text-generation", "gpt2", "texts", {"call": {"max_length": 16}}, "eval_accuracy"),
    "images": ("image-classification", "vit", "images", {}, "eval_accuracy"),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_trains_and_its_model_is_used(tiny: Tiny, train: Train, name: str) -> None:
    from transformers import pipeline

    task, model, rows, processor, metric = TASKS[name]
    data = {"train": {"source": tiny.rows(rows)}, "evaluation": EVALUATION}
    done = train(task=task, model={"source": tiny.model(model)}, processor=processor, data=data)
    assert done.result.outcome == "Complete", done.log
    final = done.run / "final"
    manifest = json.loads((final / "manifest.json").read_text())
    assert metric in manifest["metrics"]
    assert {"model.safetensors", "config.json", "README.md", "curves.png", "report.html"} <= {
        entry["path"] for entry in manifest["files"]
    }
    assert not list(final.glob("*.bin"))
    pipe = pipeline(task, str(final))
    assert pipe(
        str(Path(tiny.folder) / "0.png")
        if name == "images"
        else "cat [MASK] sun"
        if name == "masks"
        else "cat runs over sun"
    )


def test_labels_are_found_and_written_into_the_config(tiny: Tiny, train: Train) -> None:
    done = train(model={"source": tiny.model("bert")}, data={"train": {"source": tiny.rows("classes")}})
    config = json.loads((done.run / "final/config.json").read_text())
    assert config["id2label"] == {"0": "animal", "1": "ground", "2": "sky"}
    assert config["problem_type"] == "single_label_classification"


def test_concrete_classes_and_config_overrides(tiny: Tiny, train: Train) -> None:
    done = train(
        model={
            "source": tiny.model("bert"),
            "class": "BertForSequenceClassification",
            "config": {"hidden_dropout_prob": 0.3},
        },
        processor={"class": "PreTrainedTokenizerFast", "call": {"max_length": 8, "truncation": True}},
        data={"train": {"source": tiny.rows("classes")}},
    )
    assert done.result.outcome == "Complete", done.log
    assert json.loads((done.run / "final/config.json").read_text())["hidden_dropout_prob"] == 0.3


def test_from_config_alone_fits_the_tokenizer(tiny: Tiny, train: Train) -> None:
    done = train(
        task="text-generation",
        model={
            "fromConfig": True,
            "config": {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 32},
        },
        processor={"source": tiny.model("gpt2"), "call": {"max_length": 16}},
        data={"train": {"source": tiny.rows("texts")}},
    )
    assert done.result.outcome == "Complete", done.log
    config = json.loads((done.run / "final/config.json").read_text())
    assert (config["vocab_size"], config["n_layer"], config["pad_token_id"]) == (17, 1, 0)


@pytest.mark.parametrize("kind", ["csv", "parquet", "datasets"])
def test_data_of_every_format(tiny: Tiny, train: Train, tmp_path: Path, kind: str) -> None:
    from datasets import Dataset

    rows = [json.loads(line) for line in Path(tiny.rows("classes")).read_text().splitlines()]
    data = Dataset.from_list(rows).class_encode_column("label") if kind == "datasets" else Dataset.from_list(rows)
    file = tmp_path / f"data.{kind}"
    {"csv": data.to_csv, "parquet": data.to_parquet, "datasets": data.save_to_disk}[kind](str(file))
    done = train(model={"source": tiny.model("bert")}, data={"train": {"source": str(file), "maxSamples": 32}})
    assert done.result.outcome == "Complete", done.log
    assert json.loads((done.run / "final/config.json").read_text())["id2label"]["0"] == "animal"


def test_the_best_model_is_the_one_exported(tiny: Tiny, train: Train) -> None:
    arguments = {
        "max_steps": 6, "per_device_train_batch_size": 4, "save_steps": 2, "eval_steps": 2, "eval_strategy": "steps", "logging_steps": 1,
        "load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": True, "learning_rate": 1.0,
    }  # fmt: skip
    data = {"train": {"source": tiny.rows("classes")}, "evaluation": EVALUATION}
    done = train(
        model={"source": tiny.model("bert")}, data=data, trainingArguments=arguments, checkpoint={"keepLast": 1}
    )
    assert done.result.outcome == "Complete", done.log
    rows = [json.loads(line) for line in (done.run / "metrics.jsonl").read_text().splitlines()]
    measured = {row["step"]: row["eval_loss"] for row in rows[:-1] if "eval_loss" in row}
    final = json.loads((done.run / "final/manifest.json").read_text())["metrics"]["eval_loss"]
    assert final == pytest.approx(max(measured.values()), rel=1e-5)
    assert final > measured[6], "the best by this measure is not the last"


def test_the_least_error_is_the_best(tiny: Tiny, train: Train) -> None:
    """Nothing says greater_is_better: the table knows that less of mse is better."""
    arguments = {
        "max_steps": 6, "per_device_train_batch_size": 4, "save_steps": 2, "eval_steps": 2, "eval_strategy": "steps",
        "load_best_model_at_end": True, "metric_for_best_model": "mse", "learning_rate": 0.1,
    }  # fmt: skip
    data = {"train": {"source": tiny.rows("scores")}, "evaluation": EVALUATION}
    done = train(model={"source": tiny.model("bert")}, data=data, trainingArguments=arguments)
    assert done.result.outcome == "Complete", done.log
    rows = [json.loads(line) for line in (done.run / "metrics.jsonl").read_text().splitlines()]
    measured = [row["eval_mse"] for row in rows if "eval_mse" in row]
    final = json.loads((done.run / "final/manifest.json").read_text())["metrics"]["eval_mse"]
    assert final == pytest.approx(min(measured), rel=1e-5)
    assert max(measured) > 1.5 * min(measured)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"train": {"source": "./none.jsonl"}}}, "none.jsonl: no such file"),
        ({"data": {"train": {"source": "BAD"}}}, "line 1 is not JSON: Expecting value at column 23"),
        ({"data": {"train": {"source": "EMPTY"}}}, "has no rows"),
        ({"data": {"train": {"source": "ROWS", "columns": {"text": "body"}}}}, "has no column body; it has text, label"),
        ({"data": {"train": {"source": "TEXTS"}}}, "has no column label; it has text. Say which it is"),
        ({"data": {"train": {"source": "ONE"}}}, "a single value, 'a'"),
        ({"data": {"train": {"source": "NULL"}}}, "row 2 has no label"),
        ({"data": {"train": {"source": "ROWS"}, "evaluation": {"source": "OTHER"}}}, "row 1 has the label 'unheard'"),
        ({"data": {"train": {"source": "NUMBERS"}}}, "text must be text, and row 1 holds 5"),
        ({"task": "token-classification", "data": {"train": {"source": "UNEVEN"}}}, "row 2 has 1 tokens and 2 tags"),
        ({"model": {"source": "BERT", "config": {"id2label": {"0": "x", "1": "y"}}}}, "names the labels x, y, and the data has"),
        ({"model": {"source": "BERT", "config": {"num_labels": 7}}}, "num_labels is 7, and the data has"),
        ({"model": {"source": "VIT"}}, "a vit model cannot do text-classification"),
        ({"model": {"source": "./nothing"}}, "./nothing"),
        ({"model": {"source": "BERT", "class": "BertForNothing"}}, "has no BertForNothing"),
        ({"model": {"source": "BERT", "config": {"hidden_droput": 1}}}, "BertConfig has no such field"),
        ({"processor": {"class": "AutoTokeniser"}}, "has no AutoTokeniser"),
        ({"trainingArguments": {"bf16": True, "use_cpu": True, "optim": "adamw_bnb_8bit", "max_steps": 1}}, "bitsandbytes"),
    ],
    ids=["file", "json", "empty", "column", "no-label", "one-label", "null", "unknown-label", "numbers", "uneven", "labels", "num-labels", "task", "model", "class", "config", "processor", "package"],
)  # fmt: skip
def test_bad_input_is_the_users_error_with_where_and_what(
    tiny: Tiny, train: Train, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    files = {"BAD": '{"text": "a", "label": \n', "EMPTY": "", "ONE": '{"text": "x", "label": "a"}\n' * 4, "NULL": '{"text": "x", "label": "a"}\n{"text": "y", "label": null}\n', "OTHER": '{"text": "x", "label": "unheard"}\n', "NUMBERS": '{"text": 5, "label": "a"}\n{"text": 6, "label": "b"}\n', "UNEVEN": '{"tokens": ["x"], "tags": ["O"]}\n{"tokens": ["x"], "tags": ["O", "O"]}\n'}  # fmt: skip
    for name, text in files.items():
        (tmp_path / f"{name}.jsonl").write_text(text)
    known = {name: str(tmp_path / f"{name}.jsonl") for name in files} | {"ROWS": tiny.rows("classes"), "TEXTS": tiny.rows("texts"), "VIT": tiny.model("vit"), "BERT": tiny.model("bert")}  # fmt: skip
    text = json.dumps(
        {
            "model": {"source": tiny.model("bert")},
            "processor": {"source": tiny.model("bert")},
            "data": {"train": {"source": tiny.rows("classes")}},
            **changes,
        }
    )
    for name, path in known.items():
        text = text.replace(f'"{name}"', f'"{path}"')
    done = train(**json.loads(text))
    assert done.result.outcome == "UserError"
    assert message in done.result.message
    assert not (done.run / "final").exists()


def test_a_loss_that_is_no_number_fails_the_job(tiny: Tiny, train: Train) -> None:
    arguments = {"max_steps": 5, "learning_rate": 1e38, "logging_steps": 1, "max_grad_norm": 0}
    done = train(
        task="text-generation",
        model={"source": tiny.model("gpt2")},
        processor={"call": {"max_length": 16}},
        data={"train": {"source": tiny.rows("texts")}},
        trainingArguments=arguments,
    )
    assert done.result.outcome == "UserError"
    assert "training has diverged" in done.result.message
