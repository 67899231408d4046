"""Rows are what the files say: every format, name and encoding, and mistakes with their line."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Dataset

from tests.bed.s3 import S3Server
from tests.conftest import manifest
from trainyard.cluster.upload import needed
from trainyard.errors import JobError, ManifestError
from trainyard.plan.facts import gather
from trainyard.spec.manifest import loads
from trainyard.spec.model import Spec
from trainyard.storage.store import open_store
from trainyard.train import data
from trainyard.train.choices import Choices
from trainyard.train.tasks import TABLE

ROWS = [{"text": f"text {index}", "label": ["neg", "pos"][index % 2]} for index in range(4)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
CSV = "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in ROWS)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TRAINYARD_CACHE", str(tmp_path / "cache"))
    return tmp_path


def spec_of(task: str = "text-classification", **source: Any) -> Spec:
    return loads(json.dumps(manifest(task=task, data={"train": source}))).job.spec


def read(spec: Spec) -> Dataset:
    assert spec.task is not None
    return data.load(spec, TABLE[spec.task], (), Choices()).train


def refusal(spec: Spec) -> str:
    with pytest.raises(JobError) as caught:
        read(spec)
    return str(caught.value)


def zstandard(text: bytes) -> bytes:
    return pa.Codec("zstd").compress(text, asbytes=True)


@pytest.mark.parametrize(
    ("cell", "value"),
    [("007", "007"), ("12", "12"), ("NA", "NA"), ("None", "None"), ("null", "null"), ("nan", "nan"), ("2024-01-01", "2024-01-01"), ("True", "True"), ('"a,b"', "a,b")],
)  # fmt: skip
def test_csv_text_is_text_as_written(folder: Path, cell: str, value: str) -> None:
    (folder / "rows.csv").write_text(f"text,label\n{cell},neg\n{cell},pos\n")
    assert read(spec_of(source="rows.csv"))["text"][:] == [value, value]


@pytest.mark.parametrize(
    ("cells", "names"),
    [(["007", "008"], ("007", "008")), (["NA", "EU"], ("EU", "NA")), (["None", "null"], ("None", "null")), (["2", "10"], ("2", "10")), (["0.0", "1.0"], ("0", "1")), (["2024-01-01", "2024-01-02"], ("2024-01-01", "2024-01-02"))],
    ids=["zeros", "NA", "None", "numbers", "floats", "dates"],
)  # fmt: skip
def test_csv_labels_are_named_as_written(folder: Path, cells: list[str], names: tuple[str, ...]) -> None:
    (folder / "rows.csv").write_text("text,label\n" + "".join(f"x,{cell}\n" for cell in cells))
    loaded = data.load(spec_of(source="rows.csv"), TABLE["text-classification"], (), Choices())
    assert loaded.labels.names == names


def test_csv_numbers_with_fractions_are_a_regression(folder: Path) -> None:
    (folder / "rows.csv").write_text("text,label\nx,0.5\ny,2\n")
    loaded = data.load(spec_of(source="rows.csv"), TABLE["text-classification"], (), Choices())
    assert loaded.labels.problem_type == "regression"
    assert loaded.train["label"][:] == [0.5, 2.0]


def test_json_dates_and_digits_stay_text(folder: Path) -> None:
    texts = ["2024-01-01", "007", "2024-01-02 10:00:00"]
    rows = [{"text": text, "label": text} for text in texts]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read(spec_of(source="rows.jsonl"))["text"][:] == texts


@pytest.mark.parametrize("where", ["a folder", "a saved data set", "Parquet"])
def test_text_stays_text_in_every_container(folder: Path, where: str) -> None:
    rows = Dataset.from_list([{"text": "007", "label": "NA"}, {"text": "NA", "label": "None"}])
    (folder / "data").mkdir()
    save: dict[str, Callable[[], Any]] = {
        "a folder": lambda: rows.to_csv("data/train.csv"),
        "a saved data set": lambda: rows.save_to_disk("data"),
        "Parquet": lambda: rows.to_parquet("data/train.parquet"),
    }
    save[where]()
    assert read(spec_of(source="./data"))["text"][:] == ["007", "NA"]


FILES: dict[str, tuple[str, bytes, dict[str, str]]] = {
    "JSON Lines": ("rows.jsonl", LINES.encode(), {}),
    "a JSON list": ("rows.json", json.dumps(ROWS, indent=1).encode(), {}),
    "CSV": ("rows.csv", CSV.encode(), {}),
    "TSV": ("rows.tsv", CSV.replace(",", "\t").encode(), {}),
    "semicolons": ("rows.csv", CSV.replace(",", ";").encode(), {"delimiter": ";"}),
    "Windows line ends": ("rows.csv", CSV.replace("\n", "\r\n").encode(), {}),
    "a byte order mark": ("rows.csv", CSV.encode("utf-8-sig"), {}),
    "utf-16": ("rows.csv", CSV.encode("utf-16"), {}),
    "utf-16 JSON": ("rows.jsonl", LINES.encode("utf-16"), {}),
    "an encoding": ("rows.csv", CSV.encode("cp949"), {"encoding": "cp949"}),
    "no ending": ("rows", LINES.encode(), {"format": "json"}),
    "gz": ("rows.jsonl.gz", gzip.compress(LINES.encode()), {}),
    "bz2": ("rows.csv.bz2", bz2.compress(CSV.encode()), {}),
    "xz": ("rows.tsv.xz", lzma.compress(CSV.replace(",", "\t").encode()), {}),
    "zst": ("rows.jsonl.zst", zstandard(LINES.encode()), {}),
    "gz with a mark": ("rows.csv.gz", gzip.compress(CSV.encode("utf-16")), {}),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_is_read_and_counted(folder: Path, name: str) -> None:
    file, content, fields = FILES[name]
    (folder / file).write_bytes(content)
    spec = spec_of(source=f"./{file}", **fields)
    rows = read(spec)
    assert rows["text"][:] == [row["text"] for row in ROWS]
    facts = gather(spec)
    assert facts.train_rows == (None if name == "a JSON list" else len(ROWS))
    assert facts.labels["labels"].value == "2 classes (neg, pos)"


def test_korean_text_in_cp949(folder: Path) -> None:
    (folder / "rows.csv").write_bytes("text,label\n안녕하세요,긍정\n싫어요,부정\n".encode("cp949"))
    assert read(spec_of(source="rows.csv", encoding="cp949"))["text"][:] == ["안녕하세요", "싫어요"]
    assert refusal(spec_of(source="rows.csv")) == (
        "spec.data.train: rows.csv: line 2 is not UTF-8. Write data.train.encoding: cp949 (it reads as Korean)"
    )


@pytest.mark.parametrize(
    "pattern", ["part-*.jsonl", "~/part-?.jsonl", "./part-[12].jsonl", "**/part-*.jsonl", "{folder}/part-*.jsonl"]
)
def test_patterns_name_files_here(folder: Path, pattern: str) -> None:
    for index, line in enumerate(LINES.splitlines(), 1):
        (folder / f"part-{index}.jsonl").write_text(line)
    count = 2 if "[12]" in pattern else 4
    spec = spec_of(source=pattern.format(folder=folder))
    assert len(read(spec)) == count
    assert gather(spec).train_rows == count


def test_a_name_with_brackets_that_exists_is_a_name(folder: Path) -> None:
    (folder / "train[1].jsonl").write_text(LINES)
    (folder / "train1.jsonl").write_text(LINES * 2)
    assert len(read(spec_of(source="train[1].jsonl"))) == len(ROWS)


@pytest.mark.parametrize(
    "name", ["part-*.jsonl", "part-[12].jsonl", "deep/**/part-*.jsonl", "a[1].jsonl", "part-1.jsonl"]
)
def test_patterns_name_objects_in_a_bucket(s3: S3Server, s3_env: S3Server, name: str) -> None:
    store = open_store("s3://reading/rows", s3.endpoint)
    lines = LINES.splitlines()
    for path, text in (("part-1.jsonl", lines[0]), ("part-2.jsonl", lines[1]), ("part-3.json", "no"), ("a[1].jsonl", LINES), ("deep/er/part-9.jsonl", lines[2])):  # fmt: skip
        store.put(path, text.encode())
    document = manifest(
        task="fill-mask",
        data={"train": {"source": f"s3://reading/rows/{name}"}},
        storage={"uri": "./runs", "endpoint": s3.endpoint},
    )
    spec = loads(json.dumps(document)).job.spec
    rows = data.load(spec, TABLE["fill-mask"], (), Choices()).train
    assert len(rows) == {"part-*.jsonl": 2, "part-[12].jsonl": 2, "a[1].jsonl": 4}.get(name, 1)


MISTAKES: dict[str, tuple[str, str, str]] = {
    "broken JSON": ("rows.jsonl", '{"text": "a", "label": "x"}\n{"text": "b", "label": \n', "line 2 is not JSON: Expecting value at column 23"),
    "no object": ("rows.jsonl", '{"text": "a", "label": "x"}\n[1]\n', 'line 2 is a list, not an object like {"text": …}'),
    "one object": ("rows.json", '{\n "text": ["a"]\n}\n', "line 1 is not JSON: Expecting property name enclosed in double quotes at column 2; write one JSON object a line"),
    "a number among texts": ("rows.jsonl", '{"text": "a", "label": "x"}\n{"text": 5, "label": "y"}\n', "row 2: text is 5, and the rows before hold values like 'a'. Write a number that is text in quotes"),
    "numbers as texts": ("rows.jsonl", '{"text": 5, "label": "x"}\n{"text": 6, "label": "y"}\n', "text must be text, and row 1 holds 5"),
    "mixed labels": ("rows.jsonl", '{"text": "a", "label": "x"}\n{"text": "b", "label": 1}\n', "row 2: label is 1, and the rows before hold values like 'x'"),
    "an object as label": ("rows.jsonl", '{"text": "a", "label": {"a": 1}}\n', "row 1: label is {'a': 1}"),
    "another delimiter": ("rows.csv", "text;label\na;x\n", "the header is one column, 'text;label'. Is \";\" the delimiter? Then write data.train.delimiter: \";\""),
    "too many cells": ("rows.csv", "text,label\na,x\nb,c,y\n", "line 3 has 3 cells and the header 2"),
    "an open quote": ("rows.csv", 'text,label\na,x\n"b,y\n', "line 3: unexpected end of data"),
    "an empty cell": ("rows.csv", "text,label\na,x\n,y\n", "row 2 has no text"),
    "an empty label": ("rows.csv", "text,label\na,x\nb,\n", "row 2 has no label"),
    "a missing cell": ("rows.csv", "text,label\na,x\nb\n", "row 2 has no label"),
    "a header only": ("rows.csv", "text,label\n", "has no rows: the file holds a header only"),
    "nothing": ("rows.csv", "", "has no rows: the file is empty"),
    "two names": ("rows.csv", "text,text,label\na,b,x\n", "two columns are named 'text'"),
    "NaN": ("rows.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": NaN}\n', "row 2 has no label"),
    "a damaged archive": ("rows.jsonl.gz", "no archive", "rows.jsonl.gz cannot be read: Not a gzipped file"),
    "a damaged Parquet": ("rows.parquet", "no Parquet", "rows.parquet"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_place(folder: Path, name: str) -> None:
    file, text, message = MISTAKES[name]
    (folder / file).write_text(text)
    words = refusal(spec_of(source=f"./{file}"))
    assert words.startswith("spec.data.train: ")
    assert message in words


def test_a_cell_of_a_megabyte_is_read_and_counted(folder: Path) -> None:
    (folder / "rows.csv").write_text(f"text,label\n{'x' * 1_000_000},neg\ny,pos\n")
    spec = spec_of(source="rows.csv")
    assert gather(spec).train_rows == 2
    assert len(read(spec)[0]["text"]) == 1_000_000


def test_columns_that_the_task_does_not_use_may_hold_anything(folder: Path) -> None:
    rows = [{**row, "extra": extra} for row, extra in zip(ROWS, [1, "a", None, {"b": 2}], strict=True)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(read(spec_of(source="rows.jsonl"))) == len(ROWS)


def test_only_the_first_rows_are_read_with_max_samples(folder: Path) -> None:
    (folder / "rows.jsonl").write_text(LINES + "broken\n")
    assert len(read(spec_of(source="rows.jsonl", maxSamples=3))) == 3


def test_a_file_that_changes_is_read_again(folder: Path) -> None:
    (folder / "rows.jsonl").write_text(LINES)
    assert len(read(spec_of(source="rows.jsonl"))) == 4
    (folder / "rows.jsonl").write_text(LINES * 2)
    assert len(read(spec_of(source="rows.jsonl"))) == 8


def test_a_folder_of_images_has_its_labels(folder: Path) -> None:
    from PIL import Image

    for label in ("dark", "light"):
        (folder / "images/train" / label).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / "images/train" / label / "a.png")
    spec = spec_of(task="image-classification", source="./images")
    loaded = data.load(spec, TABLE["image-classification"], (), Choices())
    assert loaded.labels.names == ("dark", "light")
    assert loaded.train[0]["image"].size == (4, 4)


@pytest.mark.parametrize("pattern", ["part-*.jsonl", "./part-?.jsonl", "part-[1].jsonl"])
def test_a_pattern_is_not_uploaded(folder: Path, pattern: str) -> None:
    (folder / "part-1.jsonl").write_text(LINES)
    document = manifest(model={"source": "hub/model"}, data={"train": {"source": pattern}})
    with pytest.raises(ManifestError, match="a pattern cannot be uploaded; name the folder, or one file"):
        needed(loads(json.dumps(document)).job)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"body": "text"}, "spec.data.train.columns.body: text-classification reads no column body. Known here: text, text_pair, label."),
        ({"text": "body"}, "spec.data.train.columns.text: rows.jsonl has no column body; it has text, label"),
    ],
    ids=["part", "column"],
)  # fmt: skip
def test_a_column_that_is_not_there_is_named(folder: Path, columns: dict[str, str], message: str) -> None:
    (folder / "rows.jsonl").write_text(LINES)
    assert refusal(spec_of(source="rows.jsonl", columns=columns)) == message
