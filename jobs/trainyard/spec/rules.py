"""What the API server refuses by itself, before anybody runs anything: rules in CEL, by the model that they are of.

The words are those of the models' own checks and of the operator; a test breaks each rule and compares them.
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules
"""

from typing import Any

from trainyard.spec.model import BROUGHT_BY_SCRIPT
from trainyard.spec.patterns import IN_WORDS, NAME

Rule = dict[str, Any]

RUN = ("task", "model", "data", "script", "storage")
"""Parts of the spec that say which run it is: they stay as they were once the job was accepted."""

LOCAL = "a path on your machine, which no pod can see. Give a URI (s3://, gs://, az://), or use trainyard submit"
NO_STORAGE = (
    "no storage that pods can see. Give a bucket, as s3://bucket/folder, or the absolute path of a volume that all "
    "pods mount"
)

_STRATEGIES = "[has(self.ddp), has(self.deepspeed), has(self.fsdp)]"

OF_MODELS: dict[str, list[Rule]] = {
    "Spec": [
        {
            "rule": "has(self.script) || (has(self.task) && has(self.model) && has(self.data))",
            "message": "give task, model and data; or script, for one of your own",
        },
        {
            "rule": "!has(self.script) || !("
            + " || ".join(f"has(self.{part})" for part in ("task", "model", "data", *BROUGHT_BY_SCRIPT))
            + ")",
            "message": f"a script brings its own task, model, data, {', '.join(BROUGHT_BY_SCRIPT)}: remove them here, "
            "and use script.args",
        },
        {"rule": "has(self.storage)", "message": f"storage is missing, and its default, ./runs, is {NO_STORAGE}"},
    ],
    "Model": [
        {
            "rule": "has(self.source) || (has(self.fromConfig) && self.fromConfig && has(self.config))",
            "message": "give source; or fromConfig: true and config: {model_type: …} to train from scratch",
        },
        {
            "rule": "!has(self.trustRemoteCode) || !self.trustRemoteCode || has(self.revision)",
            "message": "trustRemoteCode runs code of the model's author; pin what you read with revision: <commit>",
        },
    ],
    "Evaluation": [
        {
            "rule": "has(self.source) != has(self.fraction)",
            "message": "give either source (a data set of its own) or fraction (a part of data.train)",
        }
    ],
    "Strategy": [
        {
            "rule": f"{_STRATEGIES}.filter(chosen, chosen).size() == 1",
            "message": "exactly one strategy is wanted (ddp, deepspeed or fsdp)",
        }
    ],
}
"""Rules of a model's fields among one another."""

_NOT_LOCAL = {
    "rule": "!self.startsWith('.') && !self.startsWith('~')",
    "messageExpression": f"self + ': {LOCAL}'",
}
OF_FIELDS: dict[tuple[str, ...], list[Rule]] = {
    ("model", "source"): [_NOT_LOCAL],
    ("processor", "source"): [_NOT_LOCAL],
    ("data", "train", "source"): [_NOT_LOCAL],
    ("data", "evaluation", "source"): [_NOT_LOCAL],
    ("code",): [_NOT_LOCAL],
    ("resumeFrom",): [_NOT_LOCAL],
    ("storage", "uri"): [
        {"rule": "self.contains('://') || self.startsWith('/')", "messageExpression": f"self + ': {NO_STORAGE}'"}
    ],
}
"""Rules of single fields, by their path in the spec: what no pod can see."""


def of_job(max_name: int) -> list[Rule]:
    """The rules of a whole job: its name, and what stays as it was once the job was accepted."""
    name = {
        "rule": f"self.metadata.name.size() <= {max_name} && self.metadata.name.matches('{NAME}')",
        "messageExpression": f"self.metadata.name + ' is not {IN_WORDS[NAME]}, at most {max_name}'",
        "fieldPath": ".metadata.name",
    }
    return [name, *(_unchanged(part) for part in RUN)]


def _unchanged(part: str) -> Rule:
    new = f"self.spec.{part}"
    old = f"oldSelf.spec.{part}"
    fix = "give the job another name; or end this one with trainyard rm"
    return {
        "rule": "!has(oldSelf.status) || !has(oldSelf.status.acceptedGeneration)"
        f" || (has({new}) == has({old}) && (!has({new}) || {new} == {old}))",
        "messageExpression": f"'{part} cannot be changed once the job was accepted: {fix} ' + self.metadata.name + "
        "' and apply it again'",
        "fieldPath": f".spec.{part}",
    }
