"""Manifests that the API server itself refuses, with its words and with those of our own check."""

from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]
_GOOD: Object = {
    "task": "text-classification",
    "model": {"source": "s3://inputs/bert"},
    "data": {"train": {"source": "s3://inputs/rows.jsonl"}},
    "storage": {"uri": "s3://runs"},
}


@dataclass(frozen=True)
class Refused:
    """One of them: a good manifest with a mistake."""

    name: str
    """Of the case."""
    changes: Object
    """Parts of the spec that take the place of the good ones; None leaves one out."""
    words: str
    """What the API server's answer says."""
    own: str = ""
    """What our own check says, where it names the values."""
    job: str = "job"
    """Name of the job."""
    good: Object = field(default_factory=lambda: dict(_GOOD))

    @property
    def own_words(self) -> str:
        """What our own check says."""
        return self.own or self.words

    def manifest(self, namespace: str) -> Object:
        """The manifest."""
        spec = {name: value for name, value in {**self.good, **self.changes}.items() if value is not None}
        meta = {"name": self.job, "namespace": namespace}
        return {"apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainerJob", "metadata": meta, "spec": spec}


_NAME = "a name of small letters, digits and -, a letter first"
_LOCAL = "a path on your machine, which no pod can see. Give a URI (s3://, gs://, az://), or use trainyard submit"
_NO_STORAGE = "no storage that pods can see. Give a bucket, as s3://bucket/folder"
_ONE_STRATEGY = "exactly one strategy is wanted (ddp, deepspeed or fsdp)"
_WHOLE = "give task, model and data; or script, for one of your own"
_ORIGIN = "give source; or fromConfig: true and config: {model_type: …} to train from scratch"
_NONE: Object = {"task": None, "model": None, "data": None}
_SCRIPT: Object = {"script": {"path": "train.py"}}
_DATA: Object = {"train": {"source": "s3://inputs/rows.jsonl"}}

REFUSED = [
    Refused("name of 51 letters", {}, f"is not {_NAME}, at most 50", "at most 50 characters", job="a" * 51),
    Refused("name with a dot", {}, f"my.job is not {_NAME}", _NAME, job="my.job"),
    Refused("name with a digit first", {}, f"7b is not {_NAME}", _NAME, job="7b"),
    Refused("two strategies", {"strategy": {"ddp": {}, "deepspeed": {"zeroStage": 2}}}, _ONE_STRATEGY),
    Refused("no strategy", {"strategy": {}}, _ONE_STRATEGY),
    Refused("neither task nor script", _NONE, _WHOLE),
    Refused("task without data", {"data": None}, _WHOLE),
    Refused("script beside a task", _SCRIPT, "a script brings its own task, model, data"),
    Refused("script with a strategy", {**_NONE, **_SCRIPT, "strategy": {"ddp": {}}}, "a script brings its own", "strategy"),
    Refused("model without a source", {"model": {}}, _ORIGIN),
    Refused("model from scratch without a config", {"model": {"fromConfig": True}}, _ORIGIN),
    Refused("code of others, unpinned", {"model": {"source": "org/model", "trustRemoteCode": True}}, "pin what you read with revision: <commit>"),
    Refused("evaluation of two kinds", {"data": {**_DATA, "evaluation": {"source": "s3://a/b", "fraction": 0.1}}}, "give either source (a data set of its own) or fraction"),
    Refused("evaluation of no kind", {"data": {**_DATA, "evaluation": {"seed": 1}}}, "give either source (a data set of its own) or fraction"),
    Refused("no storage", {"storage": None}, _NO_STORAGE),
    Refused("storage on a laptop", {"storage": {"uri": "./runs"}}, f"./runs: {_NO_STORAGE}"),
    Refused("model on a laptop", {"model": {"source": "./bert"}}, f"./bert: {_LOCAL}"),
    Refused("model in a home folder", {"model": {"source": "~/bert"}}, f"~/bert: {_LOCAL}"),
    Refused("processor on a laptop", {"processor": {"source": "./bert"}}, f"./bert: {_LOCAL}"),
    Refused("data on a laptop", {"data": {"train": {"source": "./rows.jsonl"}}}, f"./rows.jsonl: {_LOCAL}"),
    Refused("evaluation on a laptop", {"data": {**_DATA, "evaluation": {"source": "./rows.jsonl"}}}, f"./rows.jsonl: {_LOCAL}"),
    Refused("code on a laptop", {"code": "./src"}, f"./src: {_LOCAL}"),
    Refused("checkpoint on a laptop", {"resumeFrom": "./checkpoint-5"}, f"./checkpoint-5: {_LOCAL}"),
]  # fmt: skip
