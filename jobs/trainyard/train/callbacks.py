"""What happens beside the training steps: heartbeats, checkpoints, and stopping when asked."""

import math
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trainyard.train.heartbeat import Awaited, Heart
from trainyard.train.saving import Saving

_AGREE_SECONDS, _MOST_STEPS = 0.5, 16
"""Ranks agree about so often, but with not more steps between: one may suddenly take much longer than those before.

Nobody waits for an agreement, but its messages wake other threads: up to a millisecond of training on full cores.
"""
_BUSY_TIMES = 5
"""So many times as often while some rank has no free slot: a save that comes before they know of one is left out."""
_NUMBERS = 5


class HeartbeatCallback(TrainerCallback):
    """Leaves a sign at each step. Comes after the callbacks that decide on saving, evaluating and stopping."""

    def __init__(self, heart: Heart, is_busy: Callable[[], bool]) -> None:
        """`is_busy`: whether some rank had no free slot when they agreed last."""
        self._heart, self._is_busy = heart, is_busy
        self._next, self._saved = Awaited.FIRST_STEP, False

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A step is waited for; after a save for which some rank waits yet, that save."""
        waits = self._saved and self._is_busy() and self._next is Awaited.STEP
        self._heart.beat(Awaited.OTHER if waits else self._next, state.global_step)
        self._saved = False

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """This rank's part is saved."""
        self._saved = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The next step is waited for, unless something comes before it.

        Logging, which comes first, waits for all ranks: for one that hangs, as long as a step would.
        """
        self._next = Awaited.STEP
        self._heart.beat(Awaited.STEP if control.should_log else self._after(control), state.global_step)

    on_epoch_end = on_step_end

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """All ranks have told their loss, or an evaluation has ended."""
        self._heart.beat(self._after(control), state.global_step)

    def _after(self, control: TrainerControl) -> Awaited:
        busy = control.should_save or control.should_evaluate or control.should_training_stop
        return Awaited.OTHER if busy and self._next is not Awaited.NOTHING else self._next

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """An evaluation goes on, in training or after it."""
        if self._next is not Awaited.NOTHING:
            self._heart.beat(Awaited.OTHER, state.global_step)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """No more steps."""
        self._next = Awaited.NOTHING
        self._heart.beat(self._next, state.global_step)


class CheckpointCallback(TrainerCallback):
    """Where saving meets training: tensors are given back in time, failures raised, and the end waits for commits."""

    def __init__(self, saving: Saving, committed: Callable[[], None] = lambda: None) -> None:
        """`committed`: called at the end of training, when what was saved is committed."""
        self.saving, self._committed = saving, committed

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Trainer takes save_steps, eval_steps and logging_steps from the checkpoint: a changed manifest counts."""
        state.compute_steps(args, state.max_steps)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The optimizer is about to change what is being copied."""
        self.saving.release()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Everybody has added what he wants in the checkpoint. Raises JobError."""
        self.saving.complete(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A storage that is full is told at the next step. Raises StorageError."""
        self.saving.check()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """What was saved is committed before the process may end."""
        self.saving.wait()
        self._committed()


class AgreementCallback(TrainerCallback):
    """What all ranks must do at the same step: save and stop when one was asked to, save now, or leave a save out.

    A signal reaches the ranks at different steps, and their buffers are free at different times, so they agree: an
    all-reduce of a few numbers is started at a step's end and read at the next one's, when it has long finished and
    nobody waits for it. Where steps are short it is not started at each: how many steps lie between two is one of the
    numbers, and rank 0 says it, for the others' clocks may differ.
    """

    def __init__(self, is_busy: Callable[[], bool] = lambda: False, is_due: Callable[[], bool] = lambda: False) -> None:
        """`is_busy`: whether this rank has no free slot; `is_due`: whether it is time for a save."""
        self._is_busy, self._is_due = is_busy, is_due
        self._stop = self._save = False
        self._numbers = torch.zeros(_NUMBERS)
        self._group: dist.ProcessGroup | None = None
        self._pending: Any = None
        self._every = 1
        self._start_step, self._start_time = 0, 0.0
        self._saved = False
        self.stopped = False
        self.urgent = False
        """Whether the save at this step was asked for."""
        self.busy = False
        """Whether some rank had no free slot when they agreed last."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """From here on SIGTERM means save and stop, and SIGUSR2 save."""
        signal.signal(signal.SIGTERM, self._wanted)
        signal.signal(signal.SIGUSR2, self._wanted)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])  # it may have been sent already
        if self._group is None and dist.is_initialized() and "gloo" not in dist.get_backend_config():
            # On the host: to read numbers back from a GPU would wait for all the steps that are queued on it.
            self._group = dist.new_group(backend="gloo")
        self._start_step, self._start_time = state.global_step, time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Read the agreement if one was started a step ago, and start the next one if it is time."""
        stop, self.urgent, due = self._agreed(state.global_step)
        if state.global_step < state.max_steps:
            if stop:
                self.stopped = control.should_training_stop = True
            control.should_save = control.should_save or stop or self.urgent or due
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """A stop within an epoch is none of its ends: what is due there would come twice, and take the time to save."""
        if self.stopped and (state.epoch or 0.0) % 1:
            control.should_evaluate = control.should_save = control.should_log = False
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A slot is taken, on all ranks: whether there is another one is agreed on before the next save."""
        self._saved = True

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Leave no collective behind. Another SIGTERM must not end the process yet: the last step is on its way."""
        if self._pending is not None:
            self._pending.wait()
            self._pending = None
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)

    def committed(self) -> None:
        """The last step is committed: SIGTERM ends the process again, at once one that came too late to be agreed on.

        Not one that has stopped: of it only the answer is left, and another rank's SIGTERM may have come first.
        """
        if self.stopped:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            return
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if self._stop:
            os.kill(os.getpid(), signal.SIGTERM)

    def _wanted(self, number: int, frame: Any) -> None:
        self._stop = self._stop or number == signal.SIGTERM
        self._save = True

    def _agreed(self, step: int) -> tuple[bool, bool, bool]:
        """Whether to stop, to save because somebody asked for it, and to save because it is time."""
        if not dist.is_initialized() or dist.get_world_size() == 1:
            stop, save, due, self.busy = self._mine()
            return stop, save, due
        agreed = (False, False, False)
        if self._pending is not None:
            self._pending.wait()
            self._pending = None
            stop, save, due, busy, every = self._numbers.tolist()
            agreed = (bool(stop), bool(save), bool(due))
            self.busy = bool(busy)
            self._every = max(1, int(every) // (_BUSY_TIMES if busy else 1))
            if save:  # what this rank was asked a moment after another one: one save answers both
                self._save = False
        if self._saved or step >= self._start_step + self._every:
            self._start(step)
        return agreed

    def _start(self, step: int) -> None:
        now, steps = time.monotonic(), step - self._start_step
        every = min(_MOST_STEPS, int(_AGREE_SECONDS * steps / max(now - self._start_time, 1e-6)))
        self._start_step, self._start_time, self._saved = step, now, False
        every = every if dist.get_rank() == 0 else 0
        self._numbers.copy_(torch.tensor([*self._mine(), every], dtype=torch.float32))
        self._pending = dist.all_reduce(self._numbers, op=dist.ReduceOp.MAX, group=self._group, async_op=True)

    def _mine(self) -> tuple[bool, bool, bool, bool]:
        save, self._save = self._save, False  # a signal after this counts for the next time
        return self._stop, save, self._is_due(), self._is_busy()


def metrics_at(state: TrainerState) -> dict[str, float]:
    """What was measured at the step that is saved, for keepBest."""
    rows = [row for row in state.log_history if row.get("step") == state.global_step]
    return {
        name: float(value)
        for row in rows
        for name, value in row.items()
        if name not in ("step", "epoch") and isinstance(value, int | float) and math.isfinite(value)
    }
