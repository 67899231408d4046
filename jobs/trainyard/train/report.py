"""The model card, the curves and the report of a run."""

import base64
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, select_autoescape
from transformers import TrainerState

from trainyard.spec.tasks import TASKS, headline
from trainyard.spec.yamltext import dump
from trainyard.train import goodput
from trainyard.train.arguments import metrics_file, versions
from trainyard.train.work import Work


def write(folder: Path, work: Work, state: TrainerState, metrics: dict[str, float]) -> None:
    """Write README.md (the model card), curves.png and report.html into a folder."""
    history = [row for row in state.log_history if "train_runtime" not in row]
    (folder / "curves.png").write_bytes(curves(history))
    fields = _fields(work, state, metrics)
    (folder / "README.md").write_text(_render("card.md.j2", fields), encoding="utf-8")
    image = base64.b64encode((folder / "curves.png").read_bytes()).decode()
    (folder / "report.html").write_text(_render("report.html.j2", {**fields, "curves": image}), encoding="utf-8")


def curves(history: list[dict[str, Any]], form: str = "png") -> bytes:
    """A PNG (or SVG) of loss, learning rate, gradient norm and evaluation metrics over the steps."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metrics = sorted({name for row in history for name in row if name.startswith("eval_")} - _TIMES - {"eval_loss"})
    panels = [
        ("Loss", ["loss", "eval_loss"]),
        ("Evaluation", metrics),
        ("Learning rate", ["learning_rate"]),
        ("Gradient norm", ["grad_norm"]),
    ]
    panels = [(title, names) for title, names in panels if any(name in row for row in history for name in names)]
    figure = Figure(
        figsize=(5 * min(2, max(1, len(panels))), 3.2 * max(1, (len(panels) + 1) // 2)), layout="constrained"
    )
    FigureCanvasAgg(figure)
    for index, (title, names) in enumerate(panels):
        axes = figure.add_subplot((len(panels) + 1) // 2, min(2, len(panels)), index + 1)
        for name in names:
            points = [(row["step"], row[name]) for row in history if name in row]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o" if len(points) < 20 else None, ms=3, label=name)
        axes.set(title=title, xlabel="step", xlim=(0, None))
        values = [row[name] for row in history for name in names if name in row]
        if title == "Evaluation" and all(0 <= value <= 1 for value in values):
            axes.set_ylim(0, 1.03)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=110)
    return buffer.getvalue()


_TIMES = {"eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}


def _fields(work: Work, state: TrainerState, metrics: dict[str, float]) -> dict[str, Any]:
    spec = work.job.spec
    rows = metrics_file(work)
    lines = rows.read_text(encoding="utf-8").splitlines() if rows.exists() else []
    splits = goodput.by_attempt([json.loads(line) for line in lines])
    shown = {name: value for name, value in metrics.items() if name.startswith("eval_") and name not in _TIMES}
    return {
        "name": work.job.name,
        "task": spec.task,
        "base_model": spec.model.source or "none: trained from its Config alone",
        "hub_base": spec.model.source if spec.model.source and not _is_path(spec.model.source) else None,
        "data": spec.data,
        "metrics": shown,
        "headline": headline(TASKS[spec.task], shown),
        "arguments": dict(sorted(work.arguments.items())),
        "notes": work.notes,
        "strategy": work.strategy,
        "steps": state.global_step,
        "epochs": round(float(state.epoch or 0), 3),
        "attempt": work.attempt,
        "versions": versions(),
        "manifest": dump(work.manifest),
        "final": work.store.url("final"),
        "front": json.dumps,
        "goodput": splits,
        "parts": goodput.PARTS,
        "productive": goodput.share(splits),
    }


def _is_path(source: str) -> bool:
    return source.startswith((".", "/", "~")) or "://" in source


def _render(template: str, fields: dict[str, Any]) -> str:
    environment = Environment(
        autoescape=select_autoescape(["html.j2"]), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = files(__package__).joinpath(f"templates/{template}").read_text(encoding="utf-8")
    made = (
        environment.from_string(text)
        if not template.endswith(".html.j2")
        else environment.overlay(autoescape=True).from_string(text)
    )
    return made.render(fields)
