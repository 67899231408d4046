"""A job's pods run one image, whatever the operator's settings have become since."""

from typing import Any

from tests.unit.jobs import OWNER, SETTINGS, job
from tests.unit.pods import look, real, state
from trainyard_operator.identity import IMAGE_ANNOTATION
from trainyard_operator.images import group_image
from trainyard_operator.render import pod
from trainyard_operator.world import World


def made_with(image: str, index: int) -> dict[str, Any]:
    """A running pod that was made with an image."""
    each = real(index)
    each["metadata"]["annotations"] = {IMAGE_ANNOTATION: image}
    each["spec"]["containers"][0]["image"] = image
    return each


TRAINS: dict[str, Any] = {"step": 3, "total": 9, "phase": "training"}


def test_replaced_pod_gets_the_image_of_the_others() -> None:
    assert group_image(World(pods=[made_with("old:1", 1)], image="new:1")) == "old:1"
    made = pod(job(), OWNER, SETTINGS, 0, "old:1")
    assert made["spec"]["containers"][0]["image"] == "old:1"
    assert made["metadata"]["annotations"][IMAGE_ANNOTATION] == "old:1"


def test_pods_that_all_begin_get_the_new_image() -> None:
    assert group_image(World(pods=[], image="new:1")) == "new:1"
    assert pod(job(), OWNER, SETTINGS, 0)["metadata"]["annotations"][IMAGE_ANNOTATION] == SETTINGS.image


def test_job_that_keeps_its_image_says_so() -> None:
    pods = [made_with("old:1", 0), made_with("old:1", 1)]
    seen = look(pods, progress=TRAINS, image="new:1")
    assert state(seen) == ("Running", "Running")
    words = "its pods keep the image old:1; the operator's is new:1 now: trainyard suspend and resume change it"
    assert seen.status["message"] == words
    assert look(pods, progress=TRAINS, image="old:1").status["message"] == ""


def test_image_of_an_overlay_is_not_outdated() -> None:
    pods = [made_with("old:1", 0), made_with("old:1", 1)]
    for each in pods:
        each["spec"]["containers"][0]["image"] = "mine:1"
    assert look(pods, progress=TRAINS, image="new:1").status["message"] == ""
