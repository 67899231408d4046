"""`trainyard predict`."""

import os
import sys
from typing import Any

import click

from trainyard import extras
from trainyard.cli.output import format_option, print_json, print_table


@click.command()
@click.argument("model")
@click.argument("inputs", nargs=-1)
@click.option("--task", help="The model's task, where its folder does not tell.")
@click.option(
    "--endpoint", help="URL of an S3-compatible server, for a model at an s3:// URI. Default: AWS_ENDPOINT_URL."
)
@format_option("table", "json")
def command(model: str, inputs: tuple[str, ...], task: str | None, endpoint: str | None, output: str) -> None:
    """Use MODEL (a run's final folder or one of its checkpoints, or a URI of these) on INPUTS.

    Without INPUTS each line of standard input is one. Images are given as paths.
    """
    extras.need("train", "using a model")
    texts = list(inputs) or [line.rstrip("\n") for line in _lines()]
    if not texts:
        raise click.UsageError("there is nothing to predict: give a text, or lines on standard input")
    from trainyard.cli.output import quiet_libraries
    from trainyard.plan.labels import SEVERAL
    from trainyard.spec.model import Storage
    from trainyard.spec.urls import check_server

    quiet_libraries()
    from trainyard.train import evaluate

    try:
        storage = Storage(uri=os.curdir, endpoint=check_server(endpoint) if endpoint else None)
    except ValueError as error:
        raise click.UsageError(f"--endpoint: {error}") from None
    trained = evaluate.find(model, storage, task)
    answers = list(evaluate.predict(trained, texts))
    if output == "json":
        print_json([{"input": text, "output": answer} for text, answer in answers])
    else:
        several = trained.problem_type == SEVERAL
        print_table(("INPUT", "OUTPUT"), [(_short(text), _words(answer, several)) for text, answer in answers])


def _lines() -> list[str]:
    return [] if sys.stdin.isatty() else [line for line in sys.stdin if line.strip()]


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"


def _words(answer: Any, several: bool) -> str:
    """An answer for a table: of several labels all, of one the best."""
    if isinstance(answer, float):
        return f"{answer:.4g}"
    if answer == []:
        return "none"
    first = answer[0] if isinstance(answer, list) else answer
    if isinstance(first, dict) and "label" in first:
        labels = answer if several else [first]
        return ", ".join(f"{label['label']} ({label['score']:.3f})" for label in labels)
    if isinstance(first, dict) and "generated_text" in first:
        return str(first["generated_text"])
    if isinstance(answer, list) and isinstance(first, dict):
        return "  ".join(
            f"{item.get('word') or item.get('token_str')}={item.get('entity') or format(item['score'], '.3f')}"
            for item in answer
        )
    return str(answer)
