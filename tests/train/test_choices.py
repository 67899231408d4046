"""What the training process decides: collected, reported once, and part of the model card."""

import io
import json
import socket
import tempfile
from pathlib import Path

from trainyard.launch.progress import plain_display
from trainyard.plan.choice import Choice
from trainyard.train.choices import Choices
from trainyard.train.events import Events


def test_choices_are_lines_at_the_start() -> None:
    choices = Choices()
    choices.add("labels", Choice("3 classes", "the column holds words"))
    choices.add("nothing", None)
    choices.add("dtype", Choice("float32", "what is trained"))
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        path = str(Path(folder, "events"))
        listener.bind(path)
        choices.report(Events(path, 1))
        event = json.loads(listener.recv(65536))
    shown = io.StringIO()
    plain_display("job", shown).show(event)
    assert shown.getvalue().splitlines() == [
        "job: labels: 3 classes (the column holds words)",
        "job: dtype: float32 (what is trained)",
    ]


def test_choices_have_the_form_of_the_plans_notes() -> None:
    choices = Choices()
    choices.add("labels", Choice("3 classes", "the column holds words"))
    assert choices.notes() == {"labels": "3 classes: the column holds words"}
