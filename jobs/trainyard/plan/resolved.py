"""The resolved job: a manifest with every choice of the plan written down, which plans and runs the same."""

from typing import Any

from trainyard.plan.plan import Plan, keep_last
from trainyard.spec.answers import OWNED
from trainyard.spec.model import BROUGHT_BY_SCRIPT, TrainerJob


def resolved(job: TrainerJob, plan: Plan) -> dict[str, Any]:
    """The manifest of a job with every default and every choice; load() reads it.

    A choice that another field stands for (checkpoint.every, strategy, accelerate) is left to that field: written as
    an argument it would win over the field, and say something else.
    """
    manifest: dict[str, Any] = job.model_dump(by_alias=True, mode="json", exclude_none=True)
    spec = manifest["spec"]
    spec["checkpoint"]["keepLast"] = keep_last(job.spec)
    if job.spec.script is not None:
        for name in BROUGHT_BY_SCRIPT:
            spec.pop(name, None)
        return manifest
    left = {name for name, choice in plan.chosen.items() if choice.field is not None} | OWNED.keys()
    spec["trainingArguments"] = {name: value for name, value in plan.arguments.items() if name not in left}
    if "deepspeed" in plan.arguments:
        spec["strategy"]["deepspeed"]["config"] = plan.arguments["deepspeed"]
    if "fsdp_config" in plan.arguments:
        spec["strategy"]["fsdp"]["config"] = plan.arguments["fsdp_config"]
    return manifest
