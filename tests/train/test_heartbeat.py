"""What a rank says it waits for, at each place where it may stand still."""

from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from trainyard.train.callbacks import HeartbeatCallback
from trainyard.train.heartbeat import Awaited, Heart, read


@pytest.mark.parametrize("also", ["should_save", "should_evaluate", "should_training_stop"])
def test_who_waits_for_the_others_to_log_waits_for_a_step(tmp_path: Path, also: str) -> None:
    beats = tmp_path / "heartbeat-0"
    callback, args, state = HeartbeatCallback(Heart(beats)), TrainingArguments(str(tmp_path)), TrainerState()

    def awaited() -> Awaited:
        beat = read(beats)
        assert beat is not None
        return beat.awaited

    callback.on_step_begin(args, state, TrainerControl())
    assert awaited() is Awaited.FIRST_STEP
    callback.on_step_end(args, state, TrainerControl(should_log=True, **{also: True}))
    assert awaited() is Awaited.STEP, "a rank that hangs before its loss is told keeps the others in their logging"
    callback.on_log(args, state, TrainerControl(**{also: True}))
    assert awaited() is Awaited.OTHER
    callback.on_step_end(args, state, TrainerControl(**{also: True}))
    assert awaited() is Awaited.OTHER, "nothing is logged before it"
    callback.on_train_end(args, state, TrainerControl())
    callback.on_log(args, state, TrainerControl(**{also: True}))
    assert awaited() is Awaited.NOTHING
