"""The rules of the CRD say what the models and the operator say; tests/cluster has an API server evaluate them."""

import itertools
from typing import Any

import pytest

from tests.unit.refused import REFUSED, Refused
from trainyard.plan.sources import named
from trainyard.spec import rules
from trainyard.spec.manifest import validate
from trainyard.spec.schema import crd
from trainyard_operator.reconcile import accepted

Object = dict[str, Any]


def rules_of(node: Any) -> list[Object]:
    """Every rule in a schema."""
    if isinstance(node, list):
        return list(itertools.chain.from_iterable(map(rules_of, node)))
    if not isinstance(node, dict):
        return []
    children = [child for name, child in node.items() if name != "x-kubernetes-validations"]
    return [*node.get("x-kubernetes-validations", []), *rules_of(children)]


@pytest.mark.parametrize("case", REFUSED, ids=[case.name for case in REFUSED])
def test_rule_and_own_check_use_the_same_words(case: Refused) -> None:
    manifest = case.manifest("team")
    job, problems = validate(manifest)
    if job is not None:
        manifest["metadata"] |= {"uid": "1", "generation": 1}
        _, problems = accepted(manifest, "None")
    messages = [problem.message for problem in problems]
    assert any(case.own_words in message for message in messages), messages


def test_every_rule_is_in_the_crd_once() -> None:
    schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    given = itertools.chain(*rules.OF_MODELS.values(), *rules.OF_FIELDS.values())
    found = [rule["rule"] for rule in rules_of(schema)]
    assert sorted(found) == sorted(rule["rule"] for rule in [*given, *rules.of_job(50)])


def test_every_source_of_a_manifest_is_checked() -> None:
    job, problems = validate(
        {
            "apiVersion": "trainyard.dev/v1alpha1",
            "kind": "TrainerJob",
            "metadata": {"name": "job"},
            "spec": {
                "task": "text-classification", "model": {"source": "a/b"}, "processor": {"source": "a/b"},
                "data": {"train": {"source": "a/b"}, "evaluation": {"source": "a/b"}}, "code": "s3://code/a",
                "resumeFrom": "s3://run/checkpoint", "storage": {"uri": "s3://runs"},
            },
        }
    )  # fmt: skip
    assert job is not None, problems
    assert {path[1:] for path in named(job.spec)} == set(rules.OF_FIELDS) - {("storage", "uri")}
