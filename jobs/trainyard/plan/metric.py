"""The metric that rates checkpoints, against what the labels turn out to be."""

from trainyard.errors import JobError
from trainyard.plan.labels import Labels
from trainyard.spec.hints import did_you_mean
from trainyard.spec.model import Spec
from trainyard.spec.tasks import EVALUATION_PREFIX, TaskInfo


def check_metric(spec: Spec, info: TaskInfo, labels: Labels) -> None:
    """Raises JobError when metric_for_best_model is a metric of other labels, such as `mse` of classes.

    Trainer would say so after the first evaluation. A Trainer of the user's own may have metrics of its own.
    """
    written = spec.training_arguments.get("metric_for_best_model")
    if written is None or spec.trainer is not None:
        return
    name, known = str(written).removeprefix(EVALUATION_PREFIX), info.metrics_for(labels.problem_type)
    if name in info.metric_names and name not in known:
        raise JobError(
            f"spec.trainingArguments.metric_for_best_model: {written} is no metric of {labels.problem_type} labels, "
            f"which the data has. {did_you_mean(name, known)}"
        )
