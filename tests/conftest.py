"""Fixtures: a real S3 server, tiny models and data, and the command as a user runs it."""

import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.bed.s3 import S3Server, s3_server
from tests.costs import COSTS, table
from trainyard.plan.machine import MEMORY

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
WORDS = ["red", "green", "cat", "dog", "sun", "moon", "river", "stone", "runs", "sleeps", "over", "under"]

Cli = Callable[..., subprocess.CompletedProcess[str]]
"""The `cli` fixture."""

accelerator = "cuda" if list(Path("/dev").glob("nvidia[0-9]*")) else "cpu"
os.environ.update({"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "DS_ACCELERATOR": accelerator})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the faults of the session cost."""
    if COSTS:
        terminalreporter.section("what faults cost")
        terminalreporter.write_line(table(COSTS))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 6 MB."""
    if os.getuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(params=["disk", "memory"])
def staging(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """An empty folder where a checkpoint may be staged: of a disk, and of memory, from where it is sent uncopied."""
    if request.param == "disk":
        (tmp_path / "staging").mkdir()
        yield tmp_path / "staging"
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A SeaweedFS server for the whole session; tests take folders of their own in it."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_env(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, with its credentials in the environment."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return s3


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The `trainyard` command, run in the test's folder."""

    def run(
        *arguments: str, env: dict[str, str] | None = None, stdin: str = "", timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(BIN / "trainyard"), *arguments],
            cwd=tmp_path, env={**os.environ, **(env or {})}, input=stdin, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    return run


@dataclass(frozen=True)
class Tiny:
    """A folder with tiny random models and data."""

    folder: Path

    def model(self, name: str) -> str:
        """Path of a model: bert, gpt2 or vit."""
        return str(self.folder / name)

    def rows(self, name: str) -> str:
        """Path of a data set."""
        return str(self.folder / f"{name}.jsonl")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Tiny models with random weights, and data that fits each task."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import (
        BertConfig,
        BertModel,
        GPT2Config,
        GPT2LMHeadModel,
        PreTrainedTokenizerFast,
        ViTConfig,
        ViTImageProcessor,
        ViTModel,
    )

    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate([*special, *WORDS])}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", eos_token="[SEP]", bos_token="[CLS]", model_max_length=64,
    )  # fmt: skip
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(fast), max_position_embeddings=64, **sizes)).save_pretrained(folder / "bert")
    GPT2LMHeadModel(GPT2Config(vocab_size=len(fast), n_positions=64, n_embd=32, n_layer=2, n_head=2)).save_pretrained(
        folder / "gpt2"
    )
    ViTModel(ViTConfig(image_size=16, patch_size=4, **sizes)).save_pretrained(folder / "vit")
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder / "vit")
    for name in ("bert", "gpt2"):
        fast.save_pretrained(folder / name)
    _write_data(folder)
    return Tiny(folder)


def _write_data(folder: Path) -> None:
    from PIL import Image

    rng = random.Random(0)
    sentences = [" ".join(rng.choices(WORDS, k=rng.randint(4, 12))) for _ in range(64)]
    colours = [(index % 2, (200 if index % 2 else 30, rng.randint(0, 255), 90)) for index in range(16)]
    for index, (_, colour) in enumerate(colours):
        Image.new("RGB", (20, 20), colour).save(folder / f"{index}.png")
    data = {
        "classes": [
            {"text": text, "label": ["animal", "sky", "ground"][index % 3]} for index, text in enumerate(sentences)
        ],
        "scores": [{"text": text, "label": len(text) / 50} for text in sentences],
        "topics": [{"text": text, "label": sorted({text.split()[0], text.split()[-1]})} for text in sentences],
        "pairs": [
            {"text": text, "text_pair": sentences[-index], "label": index % 2} for index, text in enumerate(sentences)
        ],
        "tags": [
            {"tokens": text.split(), "tags": ["B-X" if word in ("cat", "dog") else "O" for word in text.split()]}
            for text in sentences
        ],
        "texts": [{"text": text} for text in sentences],
        "images": [
            {"image": f"{index}.png", "label": ["dark", "light"][kind]} for index, (kind, _) in enumerate(colours)
        ],
    }
    for name, rows in data.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def manifest(**changes: object) -> dict[str, object]:
    """A manifest as a mapping, with parts of its spec replaced."""
    spec: dict[str, object] = {
        "task": "text-classification",
        "model": {"source": "./model"},
        "data": {"train": {"source": "./data.jsonl"}},
        **changes,
    }
    return {"apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainerJob", "metadata": {"name": "job"}, "spec": spec}


def tiny_manifest(tiny: Tiny, folder: Path, **changes: object) -> Path:
    """A manifest file for a tiny classification job with its storage in a folder."""
    from trainyard.spec.yamltext import dump

    spec: dict[str, object] = {
        "model": {"source": tiny.model("bert")},
        "data": {"train": {"source": tiny.rows("classes")}},
        "trainingArguments": {
            "max_steps": 8,
            "per_device_train_batch_size": 4,
            "logging_steps": 1,
            "save_steps": 2,
            "learning_rate": 1e-3,
        },
        "workers": {"count": 2},
        "storage": {"uri": str(folder / "runs")},
        **changes,
    }
    file = folder / "job.yaml"
    file.write_text(dump(manifest(**spec)))
    return file


def fill(disk: Path) -> Path:
    """A file that takes all the room that a small disk has left."""
    file = disk / "fill"
    with file.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while stream.write(b"x" * 4096):
            pass
    return file


def folder_bytes(folder: Path) -> int:
    """Bytes of the files below a folder, also while they come and go."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(root) / name).stat().st_size
    return total


def losses(run: Path) -> dict[int, float]:
    """Loss of each logged step of a run, from its metrics.jsonl."""
    return {row["step"]: row["loss"] for row in _metrics(run) if "loss" in row}


def train_loss(run: Path) -> float:
    """The mean loss over all steps that Trainer tells at the end."""
    return float([row["train_loss"] for row in _metrics(run) if "train_loss" in row][-1])


def _metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
