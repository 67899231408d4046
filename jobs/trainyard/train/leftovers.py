"""What a run of before has left where Trainer saves: no part of a checkpoint of this one."""

from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

Mark = tuple[int, int]


class Leftovers:
    """The files in a Trainer's checkpoint folders, taken before the first save: later one cannot tell them from new."""

    def __init__(self, output: Path) -> None:
        self._marks: dict[Path, dict[Path, Mark | None]] = {
            folder: {file: _mark(file) for file in folder.rglob("*") if not file.is_dir()}
            for folder in output.glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        }

    def remove(self, folder: Path) -> None:
        """Remove those in a checkpoint's folder that are as they were. No folder: other ranks may be making it."""
        for file, mark in self._marks.pop(folder, {}).items():
            if _mark(file) == mark:
                file.unlink(missing_ok=True)


def _mark(file: Path) -> Mark | None:
    """What changes whenever a file is written, however it is written; None when it is gone."""
    try:
        status = file.lstat()
    except OSError:
        return None
    return status.st_ino, status.st_ctime_ns
