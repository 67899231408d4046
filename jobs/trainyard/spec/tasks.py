"""The table of tasks: what can be said of a task without torch.

The CRD, `validate`, `explain`, `init`, the docs and `train/tasks` read it. A new task is a row here and a class there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

LabelKind = Literal["none", "class", "tags"]
"""What the label column holds: nothing (there is none), a label a row, or a list of tags a row."""

Content = Literal["text", "words", "tags", "label", "image"]
"""What a cell holds: a text, a list of words, a list of tags, what label_kind says, or an image or its path."""

LOSS = "loss"
"""The metric that every task has; less of it is better."""

EVALUATION_PREFIX = "eval_"
"""What Trainer puts before the name of a metric in its logs."""


@dataclass(frozen=True)
class Column:
    """A column that a task reads."""

    name: str
    aliases: tuple[str, ...] = ()
    """Names that data sets use for it, tried in this order where the manifest names none."""
    optional: bool = False
    content: Content = "text"


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """A row of the table."""

    name: str
    """transformers' name of the task."""
    columns: tuple[Column, ...]
    auto_class: str
    """The class of transformers that loads the model."""
    processor_class: str
    """The class of transformers that loads the tokenizer or image processor."""
    label_kind: LabelKind = "none"
    special_tokens: tuple[str, ...] = ()
    """Special tokens that the tokenizer must have (`mask_token`), beside one for padding."""
    label_column: str | None = None
    """The column of the labels; None where the text is its own label."""
    metrics: Mapping[str, bool]
    """Each metric that an evaluation may give beside the loss, and whether more of it is better."""
    metrics_by_labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Where they depend on what the labels are: the metrics by transformers' problem_type."""
    headline: tuple[str, ...]
    """The metrics that say in one number how good a model is: the first one counts that an evaluation gave."""
    example_model: str
    """A small model of the hub for the manifest that `trainyard init` writes."""
    example_call: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the processor's call for the same manifest."""

    @property
    def columns_in_words(self) -> str:
        """The names of the columns for a person: `text, text_pair (optional), label`."""
        return ", ".join(f"{column.name} (optional)" if column.optional else column.name for column in self.columns)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Every name that metric_for_best_model may have, without `eval_`."""
        return (LOSS, *self.metrics)

    def metrics_for(self, problem_type: str | None) -> tuple[str, ...]:
        """The metrics of labels of a problem_type, with the loss; all of them where they do not depend on it."""
        return (LOSS, *self.metrics_by_labels.get(problem_type or "", tuple(self.metrics)))


_TEXT = Column("text", aliases=("content", "sentence", "body"))
_TEXT_CALL = {"max_length": 128, "truncation": True}

_CLASS_METRICS = {
    "single_label_classification": ("accuracy", "f1"),
    "multi_label_classification": ("f1", "accuracy"),
    "regression": ("mse", "r2"),
}

_ROWS = (
    TaskInfo(
        name="text-classification",
        columns=(
            Column("text", aliases=("sentence", "content", "review", "sentence1")),
            Column("text_pair", aliases=("sentence2",), optional=True),
            Column("label", aliases=("labels", "category", "class", "target"), content="label"),
        ),
        auto_class="AutoModelForSequenceClassification",
        processor_class="AutoTokenizer",
        label_kind="class",
        label_column="label",
        metrics={"accuracy": True, "f1": True, "mse": False, "r2": True},
        metrics_by_labels=_CLASS_METRICS,
        headline=("accuracy", "f1", "r2"),
        example_model="distilbert/distilbert-base-uncased",
        example_call=_TEXT_CALL,
    ),
    TaskInfo(
        name="token-classification",
        columns=(
            Column("tokens", aliases=("words",), content="words"),
            Column("tags", aliases=("ner_tags", "labels", "pos_tags"), content="tags"),
        ),
        auto_class="AutoModelForTokenClassification",
        processor_class="AutoTokenizer",
        label_kind="tags",
        label_column="tags",
        metrics={"precision": True, "recall": True, "f1": True, "accuracy": True},
        headline=("accuracy",),
        example_model="distilbert/distilbert-base-uncased",
        example_call=_TEXT_CALL,
    ),
    TaskInfo(
        name="fill-mask",
        special_tokens=("mask_token",),
        columns=(_TEXT,),
        auto_class="AutoModelForMaskedLM",
        processor_class="AutoTokenizer",
        metrics={"accuracy": True},
        headline=("accuracy",),
        example_model="distilbert/distilbert-base-uncased",
        example_call=_TEXT_CALL,
    ),
    TaskInfo(
        name="text-generation",
        columns=(_TEXT,),
        auto_class="AutoModelForCausalLM",
        processor_class="AutoTokenizer",
        metrics={"accuracy": True},
        headline=("accuracy",),
        example_model="openai-community/gpt2",
        example_call=_TEXT_CALL,
    ),
    TaskInfo(
        name="image-classification",
        columns=(
            Column("image", aliases=("img", "file", "path"), content="image"),
            Column("label", aliases=("labels", "class", "category"), content="label"),
        ),
        auto_class="AutoModelForImageClassification",
        processor_class="AutoImageProcessor",
        label_kind="class",
        label_column="label",
        metrics={"accuracy": True, "f1": True, "mse": False, "r2": True},
        metrics_by_labels=_CLASS_METRICS,
        headline=("accuracy", "f1", "r2"),
        example_model="google/vit-base-patch16-224-in21k",
    ),
)

TASKS: dict[str, TaskInfo] = {row.name: row for row in _ROWS}
"""The tasks that train, by their names."""

PLANNED = (
    "question-answering",
    "summarization",
    "translation",
    "audio-classification",
    "automatic-speech-recognition",
)
"""Tasks that a manifest may name, and that do not train yet."""

NAMES = (*TASKS, *PLANNED)
"""Every name that spec.task may have."""


def greater_is_better(task: TaskInfo, metric: str) -> bool | None:
    """Whether more of a metric is better; None when the table does not know the metric.

    The metric is named as in metric_for_best_model: with or without `eval_`.
    """
    name = metric.removeprefix(EVALUATION_PREFIX)
    return False if name == LOSS else task.metrics.get(name)


def headline(task: TaskInfo, metrics: Mapping[str, float]) -> tuple[str, float] | None:
    """The name and the value of the metric that says how good a model is; None when none of them is there.

    The metrics are named as in Trainer's logs, with `eval_`.
    """
    for name in (*task.headline, LOSS):
        logged = f"{EVALUATION_PREFIX}{name}"
        if logged in metrics:
            return logged, metrics[logged]
    return None
