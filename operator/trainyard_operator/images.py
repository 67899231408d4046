"""Which image a job's pods run: pure.

The operator's settings may name another image while a job runs. Its pods are one group that speaks to itself, so a pod
that is replaced gets the image of the pods that are there. Only when all of them are gone, after a suspension or a
change of the manifest, do the new ones get the new image.
"""

from trainyard.spec.podtemplate import TRAINER
from trainyard_operator.api import Object
from trainyard_operator.identity import IMAGE_ANNOTATION
from trainyard_operator.world import World


def image_of(pod: Object) -> str | None:
    """The operator's image that a pod was made with; None for a pod of an operator that did not say."""
    image: str | None = (pod["metadata"].get("annotations") or {}).get(IMAGE_ANNOTATION)
    return image


def group_image(world: World) -> str:
    """The image for pods that are made now: that of the pods that are there, else the operator's of today."""
    for index in sorted(world.by_index):
        image = image_of(world.by_index[index])
        if image is not None:
            return image
    return world.image


def outdated_words(world: World) -> str:
    """That the pods run another image than the operator's of today, and what to do; empty when they do not."""
    image = group_image(world)
    if image == world.image or not any(_runs(pod, image) for pod in world.pods):
        return ""
    return (
        f"its pods keep the image {image}; the operator's is {world.image} now: trainyard suspend and resume change it"
    )


def _runs(pod: Object, image: str) -> bool:
    """Whether the trainer of a pod runs an image; an overlay may give it another."""
    return any(each["name"] == TRAINER and each.get("image") == image for each in pod["spec"]["containers"])
