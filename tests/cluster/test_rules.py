"""The rules of the CRD, evaluated by a real API server, and what is fixed from when on."""

import subprocess
from typing import Any

import pytest

from tests.bed.kubectl import apply
from tests.bed.s3 import S3Server
from tests.cluster.jobs import ARGUMENTS, Job, status_of, wait
from tests.unit.refused import REFUSED, Refused

pytestmark = pytest.mark.usefixtures("operator")


@pytest.mark.parametrize("case", REFUSED, ids=[case.name for case in REFUSED])
def test_api_server_refuses_with_our_words(namespace: str, case: Refused) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        apply(case.manifest(namespace))
    assert case.words in refused.value.stderr


def test_refused_job_is_mended_and_applied_again(job: Job, namespace: str, inputs: str) -> None:
    arguments = {**ARGUMENTS, "eval_strategy": "epoch"}
    apply(job(trainingArguments=arguments, suspend=True))
    wait(namespace, "Finished", seconds=20)
    assert "data.evaluation" in status_of(namespace)["message"]
    data = {"train": {"source": f"{inputs}/classes.jsonl"}, "evaluation": {"fraction": 0.2}}
    apply(job(trainingArguments=arguments, suspend=True, data=data))
    wait(namespace, "Suspended", seconds=20)
    assert status_of(namespace)["state"] == "Suspended"


def test_accepted_job_keeps_what_it_trains(job: Job, namespace: str, s3: S3Server, inputs: str) -> None:
    apply(job(suspend=True))
    wait(namespace, "Accepted", seconds=20)
    changes: dict[str, Any] = {
        "task": "fill-mask",
        "model": {"source": f"{inputs}/other"},
        "data": {"train": {"source": f"{inputs}/other.jsonl"}},
        "storage": {"uri": "s3://others", "endpoint": s3.endpoint, "secret": "s3"},
    }
    for part, value in changes.items():
        with pytest.raises(subprocess.CalledProcessError) as refused:
            apply(job(suspend=True, **{part: value}))
        assert f"{part} cannot be changed once the job was accepted" in refused.value.stderr
        assert "trainyard rm job and apply it again" in refused.value.stderr
    apply(job(suspend=True, workers={"count": 3}))
