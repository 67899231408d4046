"""JSON Schema for editors and the CustomResourceDefinition, both from the models of spec/model.py."""

from typing import Any

from pydantic import BaseModel

from trainyard.spec import rules
from trainyard.spec.catalogue import arguments
from trainyard.spec.model import API_VERSION, KIND, Metadata, TrainerJob
from trainyard.spec.status import Status
from trainyard.spec.values import MAX_NAME

_FOREIGN = ("trainingArguments", "accelerate", "config", "call", "load", "template")
"""Blocks in another project's words: Kubernetes keeps them as they are, and our own code checks them."""
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
_MAX_LENGTH, _MAX_PROPERTIES = 2048, 64
_NAME_LENGTH = 253
"""Characters of a name in Kubernetes: with this bound the API server can say what a rule about it costs."""
_COLUMNS = (
    ("State", "string", ".status.state", 0),
    ("Workers", "integer", ".spec.workers.count", 0),
    ("Step", "string", ".status.columns.step", 0),
    ("Progress", "string", ".status.columns.progress", 0),
    ("ETA", "string", ".status.columns.eta", 0),
    ("Loss", "string", ".status.loss", 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Reason", "string", ".status.reason", 1),
    ("Checkpoint", "string", ".status.checkpoint", 1),
    ("Restarts", "integer", ".status.restarts", 1),
    ("Queue", "string", ".spec.queue", 1),
)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a manifest, with the TrainingArguments of the catalogue."""
    schema = _schema_of(TrainerJob)
    block = schema["$defs"]["Spec"]["properties"]["trainingArguments"]
    block["properties"] = {argument.name: _argument(argument) for argument in arguments().values()}
    block["additionalProperties"] = False
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": KIND, **schema}


def crd() -> dict[str, Any]:
    """The CustomResourceDefinition (apiextensions.k8s.io/v1), structural, with its rules in CEL."""
    schema = _schema_of(TrainerJob)
    spec = _structural(schema["$defs"]["Spec"], schema["$defs"], "spec")
    for path, field_rules in rules.OF_FIELDS.items():
        _add_rules(_at(spec, path), field_rules)
    version = API_VERSION.partition("/")[2]
    columns = [
        {"name": name, "type": kind, "jsonPath": path, **({"priority": priority} if priority else {})}
        for name, kind, path, priority in _COLUMNS
    ]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"trainerjobs.{API_VERSION.partition('/')[0]}",
            # Uninstalling the chart must not delete everyone's jobs.
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {
            "group": API_VERSION.partition("/")[0],
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": "trainerjobs",
                "singular": "trainerjob",
                "shortNames": ["tj"],
                "categories": ["training"],
            },
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "selectableFields": [{"jsonPath": ".status.state"}, {"jsonPath": ".spec.queue"}],
                    "schema": {"openAPIV3Schema": _root(spec, _status())},
                }
            ],
        },
    }


def _root(spec: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "description": "A training job: one manifest for kubectl apply and trainyard run.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Always trainyard.dev/v1alpha1."},
            "kind": {"type": "string", "description": "Always TrainerJob."},
            "metadata": {"type": "object", "properties": {"name": _name()}},
            "spec": spec,
            "status": status,
        },
        "x-kubernetes-validations": rules.of_job(MAX_NAME),
    }


def _name() -> dict[str, Any]:
    words = Metadata.model_fields["name"].description or ""
    return {"type": "string", "maxLength": _NAME_LENGTH, "description": " ".join(words.split())}


def _add_rules(node: dict[str, Any], added: list[rules.Rule]) -> None:
    if added:
        node["x-kubernetes-validations"] = [*node.get("x-kubernetes-validations", []), *(dict(rule) for rule in added)]


def _at(spec: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    node = spec
    for name in path:
        node = node["properties"][name]
    return node


def _status() -> dict[str, Any]:
    schema = _schema_of(Status)
    status = _structural(schema, schema["$defs"], "status")
    # One writer owns all of it: the API server need not tell owners apart field by field.
    status["x-kubernetes-map-type"] = "atomic"
    status["properties"]["conditions"] |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    return status


def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    schema: dict[str, Any] = _bounded(model.model_json_schema(by_alias=True, mode="validation"))
    return schema


def _bounded(node: Any) -> Any:
    """Bounds of a number in JSON Schema's words: where it is converted first, pydantic leaves its own."""
    if isinstance(node, list):
        return [_bounded(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        _BOUNDS.get(key, key) if isinstance(value, int | float) else key: _bounded(value) for key, value in node.items()
    }


def _structural(node: dict[str, Any], definitions: dict[str, Any], name: str) -> dict[str, Any]:
    """A pydantic schema as Kubernetes wants it: no $ref, no anyOf with null, no additionalProperties: false."""
    words = {"description": " ".join(node["description"].split())} if "description" in node else {}
    if "$ref" in node:
        target = definitions[node["$ref"].rpartition("/")[2]]
        return {**_structural(target, definitions, name), **words}
    if node.get("x-kubernetes-int-or-string"):
        # An API server knows whole numbers and texts here, no fractions: 0.5 is written "0.5" or 500m there.
        kinds = [{"type": "integer"}, {"type": "string"}]
        return {"anyOf": kinds, "pattern": node["pattern"], **words, "x-kubernetes-int-or-string": True}
    if "anyOf" in node:
        chosen = next(part for part in node["anyOf"] if part.get("type") != "null")
        return {**_structural(chosen, definitions, name), **words}
    if name in _FOREIGN:
        return {"type": "object", **words, "x-kubernetes-preserve-unknown-fields": True}
    kept = _limits(node)
    if "properties" in node:
        kept["properties"] = {key: _structural(child, definitions, key) for key, child in node["properties"].items()}
        if node.get("required"):
            kept["required"] = node["required"]
        _add_rules(kept, rules.OF_MODELS.get(node.get("title", ""), []))
    elif "items" in node:
        kept["items"] = _structural(node["items"], definitions, "")
    elif isinstance(node.get("additionalProperties"), dict):
        kept["additionalProperties"] = _structural(node["additionalProperties"], definitions, "")
        kept["maxProperties"] = _MAX_PROPERTIES
    return {**kept, **words}


def _limits(node: dict[str, Any]) -> dict[str, Any]:
    """The type of a value, and what it may be."""
    kept: dict[str, Any] = {
        key: node[key]
        for key in ("type", "enum", "minimum", "maximum", "pattern", "minLength", "maxLength", "maxItems")
        if key in node
    }
    for exclusive, plain in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in node:
            kept |= {plain: node[exclusive], exclusive: True}
    if "const" in node:
        kept["enum"] = [node["const"]]
    if kept.get("enum") and "type" not in kept:
        kept["type"] = "string" if isinstance(kept["enum"][0], str) else "integer"
    if kept.get("type") == "string" and "enum" not in kept:
        kept.setdefault("maxLength", _MAX_LENGTH)
    return kept


def _argument(argument: Any) -> dict[str, Any]:
    names = {
        "bool": "boolean",
        "int": "integer",
        "float": "number",
        "str": "string",
        "list": "array",
        "dict": "object",
        "null": "null",
    }
    kinds = sorted({names[kind] for kind in argument.types})
    schema: dict[str, Any] = {
        "type": kinds[0] if len(kinds) == 1 else kinds,
        "description": argument.doc,
        "default": argument.default,
    }
    return schema | ({"enum": list(argument.choices)} if argument.choices else {})
