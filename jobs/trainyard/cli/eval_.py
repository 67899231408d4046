"""`trainyard eval`."""

import json

import click

from trainyard import extras
from trainyard.cli.output import format_option, print_json, print_table, set_option


@click.command()
@click.argument("model")
@click.option("-f", "--file", required=True, help="Manifest whose data the model is measured on.")
@click.option("--data", help="Data set to measure on, instead of the manifest's evaluation data.")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True)
@format_option("table", "json")
@set_option()
def command(model: str, file: str, data: str | None, batch_size: int, output: str, overrides: tuple[str, ...]) -> None:
    """Measure MODEL (a run's final folder or one of its checkpoints, or a URI of these) on data."""
    extras.need("train", "measuring a model")
    from trainyard.cli.output import quiet_libraries
    from trainyard.spec.manifest import load

    if data is not None:  # JSON is YAML, too, and keeps a name with commas or colons whole
        overrides = (*overrides, f"data.evaluation={json.dumps({'source': data})}")
    loaded = load(file, overrides)
    quiet_libraries()
    from trainyard.train import evaluate

    spec = loaded.job.spec
    metrics = evaluate.evaluate(evaluate.find(model, spec.storage, spec.task), spec, batch_size)
    if output == "json":
        print_json(metrics)
    else:
        print_table(("METRIC", "VALUE"), [(name, f"{value:.6g}") for name, value in metrics.items()])
