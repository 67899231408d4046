"""What a rank says it waits for, at each place where it may stand still."""

from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from trainyard.train.callbacks import HeartbeatCallback
from trainyard.train.heartbeat import Awaited, Heart, read


@pytest.mark.parametrize("also", ["should_save", "should_evaluate", "should_training_stop"])
def test_who_waits_for_the_others_to_log_waits_for_a_step(tmp_path: Path, also: str) -> None:
    beats = tmp_path / "heartbeat-0"
    callback = HeartbeatCallback(Heart(beats), lambda: False)
    args, state = TrainingArguments(str(tmp_path)), TrainerState()

    def awaited() -> Awaited:
        return awaited_in(beats)

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


def test_who_waits_in_a_step_for_a_rank_that_has_no_free_slot_yet_waits_for_its_save(tmp_path: Path) -> None:
    beats, busy = tmp_path / "heartbeat-0", [True]
    callback = HeartbeatCallback(Heart(beats), lambda: busy[0])
    args, state, control = TrainingArguments(str(tmp_path)), TrainerState(), TrainerControl()
    callback.on_step_end(args, state, control)
    callback.on_step_begin(args, state, control)
    assert awaited_in(beats) is Awaited.STEP, "nothing was saved"
    for busy[0], awaited in ((True, Awaited.OTHER), (False, Awaited.STEP)):
        callback.on_save(args, state, control)
        callback.on_step_begin(args, state, control)
        assert awaited_in(beats) is awaited
        callback.on_step_end(args, state, control)
        callback.on_step_begin(args, state, control)
        assert awaited_in(beats) is Awaited.STEP


def awaited_in(beats: Path) -> Awaited:
    beat = read(beats)
    assert beat is not None
    return beat.awaited
