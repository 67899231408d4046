"""The files that stand for transformers where it is not imported are those of the installed one."""

from pathlib import Path

import pytest

from trainyard import spec
from trainyard.train import catalogue, library

FOLDER = Path(spec.__file__).parent


@pytest.mark.parametrize(
    ("name", "text"), [("training_arguments.json", catalogue.text), ("library.json", library.text)], ids=lambda v: ""
)
def test_catalogue_is_current(name: str, text: object) -> None:
    assert callable(text)
    assert (FOLDER / name).read_text(encoding="utf-8") == text()
