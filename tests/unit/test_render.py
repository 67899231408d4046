"""What the operator makes for a job, and which jobs it takes."""

import base64
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import manifest
from tests.unit.jobs import OWNER, SETTINGS, SPEC, job
from trainyard_operator.gangs import KINDS
from trainyard_operator.reconcile import accepted
from trainyard_operator.render import objects, pod, ray_secret


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "None"])
def test_gangs_are_rendered_as_their_schedulers_read_them(kind: Any) -> None:
    made = job(
        queue="team-a",
        priorityClassName="high",
        workers={"count": 4, "spares": 1, "gpus": 1, "resources": {"cpu": "2"}},
    )
    settings = replace(SETTINGS, gang=kind)
    meta, spec = (rendered := pod(made, OWNER, settings, 1))["metadata"], rendered["spec"]
    groups = [obj for obj in objects(made, OWNER, settings) if obj["kind"] == "PodGroup"]
    names = {**meta["labels"], **meta["annotations"]}
    assert spec["priorityClassName"] == "high"
    expected: dict[str, tuple[dict[str, str], str | None, dict[str, Any] | None]] = {
        "Kueue": ({"kueue.x-k8s.io/queue-name": "team-a", "kueue.x-k8s.io/pod-group-name": OWNER.child, "kueue.x-k8s.io/pod-group-total-count": "5"}, None, None),
        "Volcano": ({"scheduling.k8s.io/group-name": OWNER.child}, "volcano", {"minMember": 4, "queue": "team-a", "priorityClassName": "high"}),
        "YuniKorn": ({
            "yunikorn.apache.org/app-id": "job-uid-1", "yunikorn.apache.org/queue": "team-a", "yunikorn.apache.org/task-group-name": "workers",
            "yunikorn.apache.org/task-groups": '[{"name": "workers", "minMember": 4, "minResource": {"cpu": "2", "nvidia.com/gpu": "1"}}]',
        }, "yunikorn", None),
        "KAI": ({"kai.scheduler/queue": "team-a", "pod-group-name": OWNER.child, "kai.scheduler/skip-podgrouper": "true"}, "kai-scheduler", {"minMember": 4, "queue": "team-a", "priorityClassName": "high"}),
        "Coscheduling": ({"scheduling.x-k8s.io/pod-group": OWNER.child}, None, {"minMember": 4}),
    }  # fmt: skip
    marks, scheduler, group = expected[kind]
    assert marks.items() <= names.items()
    assert spec.get("schedulerName") == scheduler
    assert [found["spec"] for found in groups] == ([group] if group else [])
    assert all(found["metadata"]["ownerReferences"] == [OWNER.reference] for found in groups)
    assert pod(job(schedulerName="mine"), OWNER, settings, 0)["spec"]["schedulerName"] == "mine"


def test_rendering_is_deterministic_and_restricted() -> None:
    assert objects(job(), OWNER, SETTINGS) == objects(job(), OWNER, SETTINGS)
    spec = pod(job(), OWNER, SETTINGS, 1)["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    secret = objects(job(), OWNER, SETTINGS)[0]
    texts = {name: base64.b64decode(data).decode() for name, data in secret["data"].items()}
    assert set(texts) == {"job.json", "ca.crt"}
    assert "secret" not in texts["job.json"].replace('"secret": "s3', "")


def test_the_image_tells_the_agent_and_ray_where_the_operator_mounts_what_they_read() -> None:
    dockerfile = (Path(__file__).parents[2] / "jobs/Dockerfile").read_text()
    variables = re.findall(r"([A-Z_]+)=(/\S+)", dockerfile)
    mounts = {
        mount["mountPath"]: mount["name"]
        for mount in pod(job(), OWNER, SETTINGS, 0)["spec"]["containers"][0]["volumeMounts"]
    }
    secret = {**objects(job(), OWNER, SETTINGS)[0]["data"], **ray_secret(OWNER, "token")["data"]}
    told = {name: path.rpartition("/") for name, path in variables if path.rpartition("/")[0] in mounts}
    from_secret = {name: file for name, (folder, _, file) in told.items() if mounts[folder] == "job"}
    assert set(from_secret) == {"TRAINYARD_MANIFEST", "RAY_AUTH_TOKEN_PATH", "KUBEFLOW_TRAINER_SERVER_CA_CERT"}
    assert set(from_secret.values()) == set(secret)
    assert mounts[told["KUBEFLOW_TRAINER_SERVER_TOKEN"][0]] == "token"


@pytest.mark.parametrize(("cpu", "processes", "threads"), [("500m", 1, "1"), ("8", 2, "4"), ("7500m", 2, "3")])
def test_processes_take_the_threads_that_are_their_share(cpu: str, processes: int, threads: str) -> None:
    made = job(workers={"resources": {"cpu": cpu}, "processesPerWorker": processes})
    env = pod(made, OWNER, SETTINGS, 0)["spec"]["containers"][0]["env"]
    assert {"name": "OMP_NUM_THREADS", "value": threads} in env


def test_a_jobs_overlay_changes_how_its_pods_run_and_never_whose_they_are() -> None:
    template = {
        "metadata": {"labels": {"team": "a"}},
        "spec": {
            "nodeSelector": {"gpu": "h100"},
            "containers": [
                {"name": "trainer", "env": [{"name": "X", "value": "1"}]},
                {"name": "side", "image": "side:1"},
            ],
        },
    }
    made = pod(job(workers={"template": template}), OWNER, SETTINGS, 0)
    assert made["metadata"]["labels"]["team"] == "a"
    assert made["metadata"]["labels"]["trainyard.dev/job-name"] == "job"
    assert made["spec"]["nodeSelector"] == {"gpu": "h100"}
    trainer, side = made["spec"]["containers"]
    assert trainer["image"] == "trainer:1"
    assert {"name": "X", "value": "1"} in trainer["env"]
    assert side == {"name": "side", "image": "side:1"}


def test_an_overlay_without_labels_and_annotations_leaves_whose_pod_it_is() -> None:
    made = pod(job(workers={"template": {"metadata": {"labels": None, "annotations": None}}}), OWNER, SETTINGS, 0)
    assert made["metadata"]["labels"]["trainyard.dev/job-name"] == "job"
    assert made["metadata"]["annotations"]


def test_overlay_of_env_from_keeps_the_storages_secret() -> None:
    own = {"configMapRef": {"name": "mine"}}
    template = {"spec": {"containers": [{"name": "trainer", "envFrom": [own]}]}}
    made = pod(job(workers={"template": template}), OWNER, SETTINGS, 0)
    assert made["spec"]["containers"][0]["envFrom"] == [{"secretRef": {"name": "s3"}}, own]


def test_code_without_uri_is_a_path_of_the_user() -> None:
    found = manifest(**SPEC, code="src")
    job, problems = accepted({**found, "metadata": {"name": "job", "namespace": "team", "uid": "1"}}, "None")
    assert job is None
    assert [".".join(map(str, problem.path)) for problem in problems] == ["spec.code"]


def test_a_local_path_is_not_accepted() -> None:
    found = manifest(model={"source": "./bert"}, storage={"uri": "./runs"})
    made, problems = accepted({**found, "metadata": {"name": "job", "namespace": "team", "uid": "1"}}, "None")
    assert made is None
    assert {".".join(map(str, problem.path)) for problem in problems} >= {"spec.model.source", "spec.storage.uri"}


def test_a_queue_that_the_operator_does_not_know_is_not_passed_by() -> None:
    found = manifest(**{**SPEC, "queue": "team-a"})
    found["metadata"] = {"name": "job", "namespace": "team", "uid": "1"}
    assert accepted(found, "Kueue")[1] == []
    made, problems = accepted(found, "None")
    assert made is None
    assert [problem.path for problem in problems] == [("spec", "queue")]


@pytest.mark.parametrize(("uri", "taken"), [("s3//x", False), ("runs", False), ("s3://x", True), ("/mnt/runs", True)])
def test_storage_is_a_uri_or_a_mounted_path(uri: str, taken: bool) -> None:
    found = manifest(model={"source": "org/m"}, data={"train": {"source": "org/d"}}, storage={"uri": uri})
    made, _ = accepted({**found, "metadata": {"name": "job", "namespace": "team", "uid": "1"}}, "None")
    assert (made is not None) == taken
