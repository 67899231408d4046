"""The model card, the curves and the report of a run."""

import base64
import json
import math
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from transformers import TrainerState

from trainyard.spec.secrets import masked
from trainyard.spec.tasks import TASKS, headline
from trainyard.spec.yamltext import dump
from trainyard.train import goodput
from trainyard.train.arguments import metrics_file, versions
from trainyard.train.metrics import read_rows
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
    names = {
        "Loss": ["loss", "eval_loss"],
        "Evaluation": metrics,
        "Learning rate": ["learning_rate"],
        "Gradient norm": ["grad_norm"],
    }
    panels = [(title, _lines(history, names[title])) for title in names]
    panels = [(title, lines) for title, lines in panels if lines]
    columns, rows = min(2, max(1, len(panels))), max(1, (len(panels) + 1) // 2)
    figure = Figure(figsize=(5 * columns, 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for index, (title, lines) in enumerate(panels):
        _draw(figure.add_subplot(rows, columns, index + 1), title, lines)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=110)
    return buffer.getvalue()


_Line = list[tuple[float, float]]
"""Points of a curve: step and value."""


def _lines(history: list[dict[str, Any]], names: list[str]) -> dict[str, _Line]:
    """The curves that have points, by name. User code may log under these names what is no number."""
    lines = {}
    for name in names:
        points = [(row["step"], row[name]) for row in history if _is_finite(row.get(name))]
        if points:
            lines[name] = points
    return lines


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _draw(axes: Any, title: str, lines: dict[str, _Line]) -> None:
    for name, points in lines.items():
        axes.plot(*zip(*points, strict=True), marker="o" if len(points) < 20 else None, ms=3, label=name)
    axes.set(title=title, xlabel="step", xlim=(0, None))
    values = [value for points in lines.values() for _, value in points]
    if title == "Evaluation" and all(0 <= value <= 1 for value in values):
        axes.set_ylim(0, 1.03)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


_TIMES = {"eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}


def _fields(work: Work, state: TrainerState, metrics: dict[str, float]) -> dict[str, Any]:
    spec = work.job.spec
    rows = metrics_file(work)
    splits = goodput.by_attempt(read_rows(rows.read_text(encoding="utf-8")) if rows.exists() else [])
    evaluation = {name: value for name, value in metrics.items() if name.startswith("eval_")}
    shown = {name: value for name, value in evaluation.items() if name not in _TIMES and _is_number(value)}
    manifest = dump(masked(work.manifest))
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
        "manifest": manifest,
        "fence": _fence(manifest),
        "final": work.store.url("final"),
        "front": json.dumps,
        "goodput": splits,
        "parts": goodput.PARTS,
        "productive": goodput.share(splits),
    }


def _is_path(source: str) -> bool:
    return source.startswith((".", "/", "~")) or "://" in source


def _render(template: str, fields: dict[str, Any]) -> str:
    """A template filled in: text is escaped for HTML in a `.html.j2`, and for nothing in Markdown."""
    environment = Environment(
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _cell
    text = files(__package__).joinpath(f"templates/{template}").read_text(encoding="utf-8")
    return environment.from_string(text).render(fields)


def _cell(value: object) -> str:
    """A value as a cell of a Markdown table, where a bar ends the cell and `<` begins HTML."""
    text = " ".join(str(value).split())
    return text.replace("|", "\\|").replace("<", "\\<")


def _fence(text: str) -> str:
    """What encloses a block of code: longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    return "`" * max(3, longest + 1)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
