"""image-classification."""

from trainyard.spec.tasks import TASKS as TASK_INFOS
from trainyard.train.tasks.base import Columns, Encoding, Task
from trainyard.train.tasks.text import class_metrics, label_ids


def encode(rows: Columns, encoding: Encoding) -> Columns:
    """Pixel values of images, resized and normalised by the image processor, and the label."""
    images = [image.convert("RGB") for image in rows["image"]]
    pixels = encoding.processor(images, return_tensors="pt", **encoding.call)["pixel_values"]
    return {"pixel_values": list(pixels), "labels": label_ids(rows["label"], encoding.labels)}


def _collator(processor: object, model: object) -> object:
    from transformers import default_data_collator

    return default_data_collator


TASKS = (
    Task(
        info=TASK_INFOS["image-classification"],
        encode=encode,
        collator=_collator,  # type: ignore[arg-type]
        metrics=class_metrics,
        lazy=True,
    ),
)
