"""How verbs print: tables, JSON, YAML or names on stdout."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

FORMATS = ("table", "json", "yaml", "name")


def format_option(*formats: str) -> Callable[[Any], Any]:
    """The option `-o`, with the formats that a verb knows; the first is the default."""
    return click.option(
        "-o", "--output", type=click.Choice(formats), default=formats[0], help="Output format.", show_default=True
    )


def set_option() -> Callable[[Any], Any]:
    """The option `--set`, which changes a field of the manifest."""
    return click.option(
        "--set", "overrides", multiple=True, metavar="FIELD=VALUE",
        help="Change a field: --set trainingArguments.max_steps=10. Fields count from spec. May be repeated.",
    )  # fmt: skip


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    # numpy's numbers know their Python number.
    click.echo(
        json.dumps(value, indent=2, default=lambda other: other.item() if hasattr(other, "item") else str(other))
    )


def print_yaml(value: Any) -> None:
    """Print a value as YAML."""
    from trainyard.spec.yamltext import dump

    click.echo(dump(value), nl=False)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print columns as kubectl does: headings in capitals, three spaces between, no lines."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(line[index]) for line in [list(headings), *texts]) for index in range(len(headings))]
    for line in [list(headings), *texts]:
        click.echo("   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def human_size(size: int) -> str:
    """Bytes in a person's words."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def quiet_libraries() -> None:
    """Keep bars and notices of transformers and datasets away from the terminal; call before importing them."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("DS_ACCELERATOR", "cpu" if not list(Path("/dev").glob("nvidia[0-9]*")) else "cuda")
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
