"""Draws README's picture from a run of the demo: `make demo && python -m docs.picture runs/bbc-minilm`."""

import json
import sys
from pathlib import Path

from trainyard.train.report import curves

if __name__ == "__main__":
    rows = [json.loads(line) for line in Path(sys.argv[1], "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    history = [row for row in rows if "train_runtime" not in row]
    Path(__file__).with_name("demo.svg").write_bytes(curves(history, "svg"))
