"""The model card is Markdown, the report is HTML, and both take what people log and write."""

import json
import math
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
import yaml
from transformers import TrainerState

from tests.conftest import manifest
from trainyard.train import report
from trainyard.train.work import Work

NOTES = {"labels": "2 classes: \"a\" & 'b' | <none>", "batch": "8 samples:\nfour × 2"}


@pytest.fixture
def work(tmp_path: Path) -> Work:
    document = manifest(
        model={"source": 'org/model-with-"quotes"'},
        data={"train": {"source": "./a|b & c.jsonl", "columns": {"text": "```"}}},
        storage={"uri": str(tmp_path / "runs")},
    )
    return Work(
        manifest=document,
        arguments={"learning_rate": 1e-5, "lr_scheduler_type": "<b>"},
        run_uri=str(tmp_path / "runs/job"),
        attempt=1,
        staging=str(tmp_path / "staging"),
        keep_last=1,
        strategy="ddp",
        notes=NOTES,
    )


@pytest.fixture
def written(work: Work, tmp_path: Path) -> Path:
    state = TrainerState(global_step=2, max_steps=2, epoch=1.0)
    state.log_history = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25, "eval_loss": 0.5}]
    report.write(tmp_path, work, state, {"eval_loss": 0.5, "eval_text": "a"})  # type: ignore[dict-item]
    return tmp_path


def test_card_is_not_escaped_for_html(written: Path) -> None:
    card = (written / "README.md").read_text()
    assert "&#34;" not in card
    assert "&amp;" not in card
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["base_model"] == 'org/model-with-"quotes"'
    assert r"""| labels | 2 classes: "a" & 'b' \| \<none> |""" in card
    assert "| batch | 8 samples: four × 2 |" in card
    assert r"| training | ./a\|b & c.jsonl |" in card
    assert "\n````yaml\n" in card, "a fence longer than the backticks inside"
    assert card.endswith("\n")


class Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_report_is_escaped(written: Path) -> None:
    html = (written / "report.html").read_text()
    assert "<none>" not in html
    assert "<b>" not in html
    cells = Cells()
    cells.feed(html)
    assert NOTES["labels"] in cells.texts
    assert "<b>" in cells.texts


def test_curves_take_whatever_is_logged() -> None:
    values: list[object] = [0.5, math.nan, math.inf, None, "text", [1, 2], torch.zeros(3)]
    history = [{"step": step, "loss": value, "eval_f1": value} for step, value in enumerate(values)]
    assert report.curves(history).startswith(b"\x89PNG")
    assert report.curves([]).startswith(b"\x89PNG")


def test_report_skips_damaged_rows(work: Work, tmp_path: Path) -> None:
    split = {"productive": 3.0, "start_up": 1.0}
    rows = [
        "{torn",
        "3",
        json.dumps({"step": 1, "goodput": 0.5}),
        json.dumps({"step": 2, "attempt": 1, "goodput": split}),
    ]
    (tmp_path / "staging").mkdir()
    (tmp_path / "staging/metrics.jsonl").write_text("\n".join(rows))
    report.write(tmp_path, work, TrainerState(global_step=2), {})
    assert "75.0 % of all attempts" in (tmp_path / "report.html").read_text()


def test_no_value_of_a_variable_is_in_card_or_report(work: Work, tmp_path: Path) -> None:
    variable = {"name": "WANDB_PROJECT", "value": "a-private-project"}
    template = {"spec": {"containers": [{"name": "trainer", "env": [variable]}]}}
    shared = replace(work, manifest=manifest(workers={"template": template}))
    report.write(tmp_path, shared, TrainerState(global_step=1, max_steps=1, epoch=1.0), {"eval_loss": 0.5})
    for name in ("README.md", "report.html"):
        text = (tmp_path / name).read_text()
        assert "a-private-project" not in text
        assert "WANDB_PROJECT" in text
