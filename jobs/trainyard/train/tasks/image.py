"""image-classification."""

from trainyard.train.tasks.base import ColumnPart, Columns, Encoding, Task
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
        name="image-classification",
        auto_class="AutoModelForImageClassification",
        processor_class="AutoImageProcessor",
        parts=(
            ColumnPart("image", aliases=("img", "file", "path")),
            ColumnPart("label", aliases=("labels", "class", "category")),
        ),
        encode=encode,
        collator=_collator,  # type: ignore[arg-type]
        metrics=class_metrics,
        label_kind="class",
        lazy=True,
    ),
)
