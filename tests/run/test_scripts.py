"""A user's own script with an unmodified Trainer."""

import json
import signal
from pathlib import Path
from typing import Any

from tests.conftest import Tiny, losses, tiny_manifest
from tests.run.conftest import Start

SCRIPT = """
import argparse, os, signal, sys, threading
from pathlib import Path
from datasets import load_dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments
import helper

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model"); parser.add_argument("--data"); parser.add_argument("--steps", type=int)
    given = parser.parse_args()
    assert threading.current_thread() is threading.main_thread()
    assert os.environ["WORLD_SIZE"] == "2" and os.environ["GREETING"] == "hello"
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    labels = ["animal", "sky", "ground"]
    rows = load_dataset("json", data_files=given.data, split="train")
    rows = rows.map(lambda row: {**tokenizer(row["text"]), "labels": labels.index(row["label"])}, remove_columns=rows.column_names)
    model = AutoModelForSequenceClassification.from_pretrained(given.model, num_labels=helper.LABELS)
    args = TrainingArguments("out", max_steps=given.steps, per_device_train_batch_size=4, logging_steps=1, save_steps=2,
                             learning_rate=1e-3, use_cpu=True, report_to="none")
    trainer = Trainer(model=model, args=args, train_dataset=rows, data_collator=DataCollatorWithPadding(tokenizer))
    trainer.train()

if __name__ == "__main__":
    main()
"""


def script_job(tiny: Tiny, folder: Path, steps: int = 8) -> Path:
    code = folder / "code"
    code.mkdir()
    (code / "train.py").write_text(SCRIPT)
    (code / "helper.py").write_text("LABELS = 3\n")
    given = ["--model", tiny.model("bert"), "--data", tiny.rows("classes"), "--steps", str(steps)]
    script = {"path": "train.py", "args": given, "env": {"GREETING": "hello"}}
    return of_script(tiny_manifest(tiny, folder, code="./code", script=script))


def of_script(file: Path) -> Path:
    """The manifest without what a script brings by itself."""
    from trainyard.spec.yamltext import dump, parse

    document: Any = parse(file.read_text()).value
    for part in ("task", "model", "data", "trainingArguments"):
        del document["spec"][part]
    file.write_text(dump(document))
    return file


def test_an_unmodified_script_reports_and_is_kept_and_resumed(start: Start, tiny: Tiny, tmp_path: Path) -> None:
    job = script_job(tiny, tmp_path, steps=400)
    run = tmp_path / "runs" / "job"
    first = start(job)
    first.wait_for("checkpoint 00000006")
    first.process.send_signal(signal.SIGTERM)
    code, _, err = first.end()
    assert code == 130, err
    (step,) = {json.loads(file.read_text())["step"] for file in sorted(run.glob("checkpoints/*/manifest.json"))[-1:]}
    text = job.read_text().replace("'400'", f"'{step + 4}'")
    assert text != job.read_text()
    job.write_text(text)
    code, out, err = start(job).end()
    assert code == 0, err
    assert set(losses(run)) == set(range(1, step + 5)), "no step is lost, none is trained twice"
    assert json.loads((run / "attempts/00002.json").read_text())["resumed_from"].startswith(f"{step:08d}")
    assert (run / "final/model.safetensors").exists()
    assert "is complete" in out
