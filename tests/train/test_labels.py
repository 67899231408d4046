"""What labels are: decided from the values, matched by name between data sets, refused with the row and the fix."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from transformers import BertConfig

from tests.conftest import Cli, Tiny, manifest, tiny_manifest
from tests.train.conftest import Train
from trainyard.errors import JobError
from trainyard.plan.facts import gather
from trainyard.plan.labelling import Wish, decided
from trainyard.plan.labels import CLASSES, NUMBERS, SEVERAL, Column, matched
from trainyard.spec.manifest import loads
from trainyard.spec.tasks import TASKS
from trainyard.train import data
from trainyard.train.choices import Choices
from trainyard.train.data.labels import of_model
from trainyard.train.tasks import TABLE
from trainyard.train.tasks.text import label_ids

Given = dict[str, Any]
CLASSIFY = TASKS["text-classification"]
REGRESSION = {"problem_type": NUMBERS}
NAMED = {"id2label": {0: "neg", 1: "pos"}}

DECISIONS: dict[str, tuple[list[Any], Given, tuple[str, ...], str, list[Any], str]] = {
    "words": (["b", "a", "b"], {}, ("a", "b"), CLASSES, [1, 0, 1], "2 classes (a, b): the column holds words"),
    "digits with zeros": (["007", "7"], {}, ("007", "7"), CLASSES, [0, 1], "2 classes (007, 7): the column holds words"),
    "whole numbers": ([2, 10, 2], {}, ("2", "10"), CLASSES, [0, 1, 0], "2 classes (2, 10): the column holds whole numbers; for amounts, write model.config: {problem_type: regression}"),
    "true and false": ([True, False], {}, ("False", "True"), CLASSES, [1, 0], "2 classes (False, True): the column holds true and false"),
    "floats that are integers": ([0.0, 2.0, 1.0], {}, ("0", "1", "2"), CLASSES, [0, 2, 1], "3 classes (0, 1, 2): the column holds floats that are all whole numbers; for amounts, write model.config: {problem_type: regression}"),
    "minus one among numbers": ([-1, 0, 1], {}, ("-1", "0", "1"), CLASSES, [0, 1, 2], "3 classes (-1, 0, 1): the column holds whole numbers; for amounts, write model.config: {problem_type: regression}"),
    "fractions": ([0.5, 2.0], {}, (), NUMBERS, [0.5, 2.0], "regression, a number for each row: the column holds numbers with fractions"),
    "stars as amounts": ([1, 5], REGRESSION, (), NUMBERS, [1.0, 5.0], "regression, a number for each row: model.config.problem_type"),
    "stars with one label": ([1, 5], {**REGRESSION, "num_labels": 1}, (), NUMBERS, [1.0, 5.0], "regression, a number for each row: model.config.problem_type"),
    "ids of named classes": ([1, 0], NAMED, ("neg", "pos"), CLASSES, [1, 0], "2 classes (neg, pos): the column holds whole numbers; named by model.config; for amounts, write model.config: {problem_type: regression}"),
    "ids of more classes than occur": ([0, 3], {"num_labels": 5}, ("0", "1", "2", "3", "4"), CLASSES, [0, 3], "5 classes (0, 1, 2, 3, 4): the column holds whole numbers; model.config.num_labels; for amounts, write model.config: {problem_type: regression}"),
    "names in the manifest's order": (["neg", "pos"], {"id2label": {0: "pos", 1: "neg"}}, ("pos", "neg"), CLASSES, [1, 0], "2 classes (pos, neg): the column holds words; named by model.config"),
    "more names than occur": (["a", "b"], {"label2id": {"c": 0, "b": 1, "a": 2}}, ("c", "b", "a"), CLASSES, [2, 1], "3 classes (c, b, a): the column holds words; named by model.config"),
    "vectors": ([[1, 0, 1], [0, 0, 1]], {}, ("0", "1", "2"), SEVERAL, [[1, 0, 1], [0, 0, 1]], "3 labels, several a row (0, 1, 2): the column holds vectors of 3 numbers"),
    "vectors of floats": ([[1.0, 0.0], [0.0, 0.0]], {}, ("0", "1"), SEVERAL, [[1, 0], [0, 0]], "2 labels, several a row (0, 1): the column holds vectors of 2 numbers"),
    "vectors of probabilities": ([[0.9, 0.2], [0.0, 1.0]], {}, ("0", "1"), SEVERAL, [[0.9, 0.2], [0, 1]], "2 labels, several a row (0, 1): the column holds vectors of 2 numbers"),
    "vectors of true and false": ([[True, False], [True, True]], {}, ("0", "1"), SEVERAL, [[1, 0], [1, 1]], "2 labels, several a row (0, 1): the column holds vectors of 2 numbers"),
    "named vectors": ([[1, 0], [0, 1]], NAMED, ("neg", "pos"), SEVERAL, [[1, 0], [0, 1]], "2 labels, several a row (neg, pos): the column holds vectors of 2 numbers; named by model.config"),
    "lists of names": ([["a", "c"], ["b"], []], {}, ("a", "b", "c"), SEVERAL, [[1, 0, 1], [0, 1, 0], [0, 0, 0]], "3 labels, several a row (a, b, c): the column holds lists of words"),
    "lists of ids": ([[0, 2], [1]], {}, ("0", "1", "2"), SEVERAL, [[1, 0, 1], [0, 1, 0]], "3 labels, several a row (0, 1, 2): the column holds lists of whole numbers"),
    "lists of ids of one length": ([[3, 5], [2, 5]], {}, ("2", "3", "5"), SEVERAL, [[0, 1, 1], [1, 0, 1]], "3 labels, several a row (2, 3, 5): the column holds lists of whole numbers"),
    "lists of amounts": ([[1.5, 20.0], [3.5, 10.0]], {}, (), NUMBERS, [[1.5, 20.0], [3.5, 10.0]], "regression, 2 numbers for each row: the column holds vectors of 2 numbers"),
}  # fmt: skip


@pytest.mark.parametrize("name", DECISIONS)
def test_labels_are_decided_from_the_values(name: str) -> None:
    values, config, names, problem_type, encoded, line = DECISIONS[name]
    labels, lines = decided(Column(values), CLASSIFY, Wish(config=config))
    assert (labels.names, labels.problem_type) == (names, problem_type)
    assert label_ids(values, labels) == encoded
    assert f"{lines['labels'].value}: {lines['labels'].reason}" == line


REFUSALS: dict[str, tuple[list[Any], Given, str]] = {
    "a list and then a number": ([[1, 0], 1], {}, "row 2 has the label 1; each row needs a list of labels"),
    "a misspelt problem type": (["a", "b"], {"problem_type": "regresion"}, "spec.model.config.problem_type: there is no 'regresion'; write one of single_label_classification, multi_label_classification, regression"),
    "a regression of words": (["a", "b"], REGRESSION, "spec.model.config.problem_type is regression, and label holds words: write single_label_classification, or leave it out"),
    "several labels of one": (["a", "b"], {"problem_type": SEVERAL}, "problem_type is multi_label_classification, and label holds words: write single_label_classification, or leave it out"),
    "one label of several": ([["a"], ["b", "c"]], {"problem_type": CLASSES}, "label holds lists of words: write multi_label_classification, or leave it out"),
    "classes of fractions": ([0.5, 1.0], {"problem_type": CLASSES}, "label holds numbers with fractions: write regression, or leave it out"),
    "three labels of floats": ([0.5, 1.5], {"num_labels": 3}, "spec.model.config.num_labels is 3, and label holds numbers with fractions, which makes a regression with 1 output; leave it out"),
    "one label of stars": ([1, 2, 5], {"num_labels": 1}, "num_labels is 1, and the data has 3 labels (1, 2, 5); leave it out; for amounts, write model.config: {problem_type: regression}"),
    "an id without a name": ([0, 1, 2], NAMED, "spec.model.config names the labels neg, pos, and the data has 0, 1, 2"),
    "other names": (["a", "b"], NAMED, "spec.model.config names the labels neg, pos, and the data has a, b"),
    "names that contradict": (["neg", "pos"], {**NAMED, "label2id": {"neg": 1, "pos": 0}}, "id2label and label2id contradict each other"),
    "a gap": (["neg", "pos"], {"id2label": {0: "neg", 2: "pos"}}, "must be 0, 1, 2, … without a gap"),
    "one value": (["a", "a"], {}, "spec.data.train: label has a single value, 'a'"),
    "no label at all": ([[], []], {}, "spec.data.train: no row has a label"),
    "a missing one": (["a", None], {}, "spec.data.train: row 2 has no label"),
    "a list among names": (["a", ["b"]], {}, "row 2 has the label ['b']; each row needs one label"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_labels_that_do_not_fit_are_refused(name: str) -> None:
    values, config, message = REFUSALS[name]
    with pytest.raises(JobError) as caught:
        decided(Column(values), CLASSIFY, Wish(config=config))
    assert message in str(caught.value)


def test_class_labels_take_the_order_of_the_manifest() -> None:
    config = {"id2label": {0: "pos", 1: "neg"}}
    labels, _ = decided(Column([0, 1], ("neg", "pos")), CLASSIFY, Wish(config=config))
    assert labels.names == ("pos", "neg")
    assert label_ids([0, 1], labels) == [1, 0]


def test_names_keep_the_order_of_the_model() -> None:
    labels, lines = decided(Column(["neg", "pos"]), CLASSIFY, Wish(config={}, model_names=("pos", "neg")))
    assert labels.names == ("pos", "neg")
    assert lines["labels"].reason == "the column holds words; in the order of the model"


def test_a_class_label_column_is_matched_to_the_model_by_name() -> None:
    column = Column([0, 1], ("neg", "pos"))
    labels, _ = decided(column, CLASSIFY, Wish(config={}, model_names=("pos", "neg")))
    assert label_ids([0, 1], labels) == [1, 0]


TRAIN = Column([0, 1], ("neg", "pos"))
WORDS = Column(["neg", "pos"])
MATCHES = {
    "class label, then words": (TRAIN, WORDS, [0, 1]),
    "words, then class label": (WORDS, TRAIN, [0, 1]),
    "class label in another order": (TRAIN, Column([1, 0], ("pos", "neg")), [0, 1]),
    "class label, then ids": (TRAIN, Column([0, 1]), [0, 1]),
    "ids, then class label": (Column([0, 1]), TRAIN, [0, 1]),
    "class label with more names": (TRAIN, Column([2, 1], ("neutral", "pos", "neg")), [0, 1]),
    "floats, then whole numbers": (Column([0.0, 1.0]), Column([0, 1]), [0, 1]),
    "lists of names, then vectors": (Column([["neg"], ["pos"]]), Column([[1, 0], [0, 1]]), [[1, 0], [0, 1]]),
    "vectors, then lists of names": (Column([[1, 0], [0, 1]]), Column([["0"], ["1"]]), [[1, 0], [0, 1]]),
}


@pytest.mark.parametrize("name", MATCHES)
def test_evaluation_labels_are_matched_by_name(name: str) -> None:
    train, evaluation, encoded = MATCHES[name]
    labels, _ = decided(train, CLASSIFY, Wish(config={}))
    coded = matched(labels, evaluation, "data.evaluation", "label")
    assert label_ids(list(evaluation.values), coded) == encoded


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        (Column(["neg", "neutral"]), "row 2 has the label 'neutral', unknown to the model (neg, pos)"),
        (Column([0, 1], ("neg", "neutral")), "row 2 has the label 'neutral', unknown to the model (neg, pos)"),
        (Column([0, 2]), "row 2 has the label 2, unknown to the model (neg, pos)"),
        (Column([1, -1], ("neg", "pos")), "row 2 has the label -1, which in a ClassLabel column means that the row has no label, as in the test splits of GLUE"),
        (Column([0, 5], ("neg", "pos")), "row 2 has the label 5, and the column names 2 (neg, pos)"),
    ],
    ids=["name", "class-label", "id", "minus-one", "out-of-range"],
)  # fmt: skip
def test_unknown_evaluation_labels_are_named(evaluation: Column, message: str) -> None:
    labels, _ = decided(TRAIN, CLASSIFY, Wish(config={}))
    with pytest.raises(JobError) as caught:
        matched(labels, evaluation, "data.evaluation", "label")
    assert str(caught.value).startswith(f"spec.data.evaluation: {message}")


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        ([["B-PER", "I-PER"], ["O"]], True),
        ([["S-LOC"], ["B-LOC", "E-LOC", "O"]], True),
        ([["NOUN", "VERB"], ["DET"]], False),
        ([[3, 0], [1]], False),
        ([["PER", "O"], ["O"]], False),
    ],
    ids=["BIO", "BIOES", "POS", "ids", "no-begin"],
)  # fmt: skip
def test_only_bio_tags_are_entities(tags: list[Any], entities: bool) -> None:
    labels, lines = decided(Column(tags), TASKS["token-classification"], Wish(config={}))
    assert labels.are_entities is entities
    assert lines["score"].value == ("F1 over entities" if entities else "macro F1 over tags")


def test_named_tag_ids_are_entities() -> None:
    config = {"id2label": {0: "O", 1: "B-X"}}
    labels, _ = decided(Column([[0, 1], [0]]), TASKS["token-classification"], Wish(config=config))
    assert labels.are_entities
    assert [labels.index(tag) for tag in (0, 1, -100)] == [0, 1, -100]


@pytest.mark.parametrize("which", ["train", "evaluation"])
def test_rows_without_a_label_are_found_before_training(tmp_path: Path, which: str) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    rows = {"text": ["a", "b", "c"], "label": [0, 1, 1]}
    Dataset.from_dict(rows, features).save_to_disk(tmp_path / "good")
    Dataset.from_dict({**rows, "label": [0, 1, -1]}, features).save_to_disk(tmp_path / "bad")
    sources = {
        name: {"source": str(tmp_path / ("bad" if name == which else "good"))} for name in ("train", "evaluation")
    }
    spec = loads(json.dumps(manifest(data=sources))).job.spec
    with pytest.raises(
        JobError, match=rf"spec.data.{which}: row 3 has the label -1, which in a ClassLabel column means"
    ):
        data.load(spec, TABLE["text-classification"], (), Choices())


def test_a_list_of_class_labels_is_several_labels(tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "labels": List(ClassLabel(names=["x", "y", "z"]))})
    Dataset.from_dict({"text": ["a", "b"], "labels": [[0, 2], []]}, features).save_to_disk(tmp_path / "rows")
    spec = loads(json.dumps(manifest(data={"train": {"source": str(tmp_path / "rows")}}))).job.spec
    loaded = data.load(spec, TABLE["text-classification"], (), Choices())
    assert label_ids(loaded.train["label"][:], loaded.labels) == [[1, 0, 1], [0, 0, 0]]


def test_plan_and_training_say_the_same_line(tiny: Tiny, train: Train, cli: Cli, tmp_path: Path) -> None:
    rows = [{"text": f"cat {index}", "labels": [index % 2, 1, 0]} for index in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"train": {"source": str(tmp_path / "rows.jsonl")}}
    planned = cli("plan", str(tiny_manifest(tiny, tmp_path, data=source)))
    line = "3 labels, several a row (0, 1, 2)"
    assert line in planned.stdout, planned.stderr
    done = train(model={"source": tiny.model("bert")}, data=source)
    assert done.result.outcome == "Complete", done.log
    assert f"{line}: the column holds vectors of 3 numbers" in (done.run / "final/README.md").read_text()
    config = json.loads((done.run / "final/config.json").read_text())
    assert config["id2label"] == {"0": "0", "1": "1", "2": "2"}
    assert config["problem_type"] == SEVERAL


def test_plan_reads_class_labels_of_parquet(tiny: Tiny, cli: Cli, tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    rows = Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}, features)
    rows.to_parquet(tmp_path / "rows.parquet")
    planned = cli(
        "plan", str(tiny_manifest(tiny, tmp_path, data={"train": {"source": str(tmp_path / "rows.parquet")}}))
    )
    assert "2 classes (neg, pos)" in planned.stdout, planned.stderr


def test_plan_refuses_what_training_would_refuse(tiny: Tiny, cli: Cli, tmp_path: Path) -> None:
    model = {"source": tiny.model("bert"), "config": {"problem_type": "regression"}}
    planned = cli("plan", str(tiny_manifest(tiny, tmp_path, model=model)))
    assert planned.returncode == 5
    assert "problem_type is regression, and label holds words" in planned.stderr


def test_plan_refuses_an_unknown_evaluation_label(tmp_path: Path) -> None:
    for name, labels in (("train", ["neg", "pos"]), ("evaluation", ["neg", "neutral"])):
        rows = "".join(json.dumps({"text": "a", "label": label}) + "\n" for label in labels)
        (tmp_path / f"{name}.jsonl").write_text(rows)
    sources = {name: {"source": str(tmp_path / f"{name}.jsonl")} for name in ("train", "evaluation")}
    facts = gather(loads(json.dumps(manifest(data=sources))).job.spec)
    assert facts.problem == "spec.data.evaluation: row 2 has the label 'neutral', unknown to the model (neg, pos)"


@pytest.mark.parametrize(
    ("fields", "problem_type", "names"),
    [
        ({"num_labels": 1}, NUMBERS, ()),
        ({"num_labels": 2}, CLASSES, ("LABEL_0", "LABEL_1")),
        ({"id2label": {0: "a", 1: "b"}, "problem_type": SEVERAL}, SEVERAL, ("a", "b")),
        ({"num_labels": 2, "problem_type": NUMBERS}, NUMBERS, ()),
    ],
    ids=["one-output", "classes", "several", "two-numbers"],
)
def test_labels_of_a_trained_model(fields: Given, problem_type: str, names: tuple[str, ...]) -> None:
    labels = of_model(BertConfig(**fields), CLASSIFY)
    assert (labels.problem_type, labels.names) == (problem_type, names)
    if problem_type == NUMBERS:
        assert labels.outputs == fields["num_labels"]
