"""Jobs whose pods hold other containers: the trainer decides how a pod has ended."""

import pytest

from tests.bed.kubectl import apply, get, kubectl
from tests.cluster.jobs import ARGUMENTS, Job, status_of, until, wait
from tests.cluster.pods import BASE
from tests.cluster.scripted import beside, ends, scripted

pytestmark = pytest.mark.usefixtures("operator")


@pytest.mark.parametrize("native", [False, True], ids=["sidecar", "native"])
def test_end_of_the_trainer_counts_beside_a_sidecar(namespace: str, native: bool) -> None:
    for name, script in {
        "well": ends(0, "Complete", "s3://none/final"),
        "mistake": ends(5, "UserError", "no such column"),
        "fault": ends(75, "Infrastructure", "the head died"),
    }.items():
        apply(beside(scripted(namespace, name, script), BASE, native))
    wait(namespace, "Complete", "well", seconds=60)
    wait(namespace, "Failed", "mistake", seconds=60)
    until(namespace, "{.status.restarts}=2", "fault", seconds=60)
    assert status_of(namespace, "mistake")["message"] == "no such column"
    assert "the head died" in status_of(namespace, "fault")["message"]
    for name in ("well-0", "mistake-0"):
        kubectl("wait", f"pod/{name}", "--namespace", namespace, "--for=delete", "--timeout=60s", timeout=65)


def test_job_with_a_sidecar_trains_to_its_end(job: Job, namespace: str) -> None:
    apply(beside(job(), BASE))
    wait(namespace, "Complete")
    assert status_of(namespace)["step"] == ARGUMENTS["max_steps"]
    for pod in get("pods", "--namespace", namespace)["items"]:
        name = pod["metadata"]["name"]
        kubectl("wait", f"pod/{name}", "--namespace", namespace, "--for=delete", "--timeout=60s", timeout=65)
