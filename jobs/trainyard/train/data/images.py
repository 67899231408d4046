"""Images that are named by their paths."""

from pathlib import Path

import datasets
from datasets import Dataset

from trainyard.spec.tasks import TaskInfo


def loaded(data: Dataset, task: TaskInfo, folder: Path) -> Dataset:
    """The data with images in place of their paths, which count from the folder of the file that names them."""
    for column in task.columns:
        feature = data.features.get(column.name)
        if column.content != "image" or getattr(feature, "dtype", "") not in ("string", "large_string"):
            continue
        paths = [None if path is None else str(folder / path) for path in data[column.name][:]]
        without = data.remove_columns(column.name)
        data = without.add_column(column.name, paths).cast_column(column.name, datasets.Image())
    return data
