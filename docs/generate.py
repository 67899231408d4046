"""Writes the generated files, or checks that they are current: `python -m docs.generate [--check]`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from docs.chart import readme
from trainyard.spec.catalogue import arguments, transformers_version
from trainyard.spec.fields import entries
from trainyard.spec.schema import crd, json_schema
from trainyard.spec.tasks import TASKS
from trainyard.spec.yamltext import dump

ROOT = Path(__file__).parent.parent


def manifest_page() -> str:
    """docs/manifest.md: every field of the manifest, and the TrainingArguments that are not plain."""
    lines = [
        "# The manifest",
        "",
        "<!-- Written by `make generate` from jobs/trainyard/spec/model.py. -->",
        "",
        "One file for `trainyard run` and `kubectl apply`. `trainyard explain FIELD` shows the same words in the "
        "terminal, and `trainyard schema` prints the JSON Schema for your editor.",
        "",
        "| field | type | default | |",
        "|---|---|---|---|",
    ]
    for entry in entries():
        default = "**required**" if entry.required else f"`{entry.default}`" if entry.default is not None else ""
        cells = [f"`{'.'.join(entry.path)}`", entry.type, default, entry.help]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", "## Columns", "", "| task | columns |", "|---|---|"]
    lines += [f"| {task.name} | {task.columns_in_words} |" for task in TASKS.values()]
    lines += [
        "",
        "## TrainingArguments",
        "",
        f"The {len(arguments())} arguments of transformers {transformers_version()} are taken verbatim; "
        "`trainyard explain trainingArguments.NAME` shows each. What trainyard sets by itself, or cannot let pass, "
        "is refused with the reason.",
        "",
    ]
    return "\n".join(lines)


def crd_text() -> str:
    """The CustomResourceDefinition: what `trainyard schema --crd` prints."""
    return "# Written by `make generate` from jobs/trainyard/spec/model.py.\n" + dump(crd())


def catalogue_text() -> str:
    """The catalogue of TrainingArguments, from the installed transformers."""
    from trainyard.train.catalogue import text

    return text()


def library_text() -> str:
    """What the installed transformers takes beside TrainingArguments."""
    from trainyard.train.library import text

    return text()


GENERATED: dict[str, Callable[[], str]] = {
    "jobs/trainyard/spec/training_arguments.json": catalogue_text,
    "jobs/trainyard/spec/library.json": library_text,
    "docs/manifest.md": manifest_page,
    "docs/manifest.schema.json": lambda: json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n",
    "charts/trainyard/files/trainerjob.crd.yaml": crd_text,
    "charts/trainyard/README.md": lambda: readme(ROOT / "charts/trainyard/values.yaml"),
}


def main(check: bool) -> int:
    """Write every generated file; with `check` only compare. Returns the exit code."""
    stale = []
    for name, make in GENERATED.items():
        file, text = ROOT / name, make()
        if file.exists() and file.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    if stale:
        print(f"{'stale' if check else 'written'}: {', '.join(stale)}" + (". Run: make generate" if check else ""))
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv))
