"""The status of a job on a cluster, as pydantic models: the words of `kubectl explain tj.status`.

Programs read numbers: whole ones are integers, any other is a decimal in a string, because the Kubernetes API has no
floats. People read `columns`, which says the same in words.
"""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from trainyard.spec.model import Part
from trainyard.spec.values import Int

WORD_LENGTH, LINE_LENGTH, METRICS, FAULTS = 64, 2048, 64, 101
"""At most: characters of a word and of a line, metrics, moments of faults."""

Word = Annotated[str, StringConstraints(max_length=WORD_LENGTH)]
Line = Annotated[str, StringConstraints(max_length=LINE_LENGTH)]
Time = Annotated[str, StringConstraints(max_length=64)]


class Condition(Part):
    """One thing that holds of the job, or does not."""

    type: Word
    """Accepted, Running, Suspended, Complete, Failed, or Finished: the job makes no more steps by itself, because it is
    complete, has failed, or its manifest is not accepted."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Word
    """Why, in one word of a fixed list."""
    message: Line
    """Why, in words that a person can act on."""
    last_transition_time: Time
    """When the status of this condition changed last."""
    observed_generation: Int
    """Generation of the manifest that this was found for."""


class AttemptStatus(Part):
    """One start of the job's training processes."""

    number: Int
    """Number of the attempt, from 1, as in the run's folder."""
    start_time: Time
    """When it was seen first."""
    resumed_from: Word | None = None
    """Checkpoint that it went on from; none for a fresh start."""
    cause: Line | None = None
    """Why the attempt before it ended."""
    lost_steps: Int | None = None
    """Steps that were done before and had to be done again."""


class Metric(Part):
    """One measured value."""

    name: Word
    """Name of the metric, as transformers logs it."""
    value: Word
    """Its newest value: a decimal number in a string."""


class Columns(Part):
    """What `kubectl get` shows of the numbers. Programs read the numbers themselves."""

    step: Word | None = None
    """Optimizer steps done, of how many: 30/120."""
    progress: Word | None = None
    """The same in percent: 25%."""
    eta: Word | None = None
    """Time that is left: 2m3s."""


class LastEnd(Part):
    """How the pod of the newest fault ended, and how many times in a row."""

    kind: Line
    """What the end was like."""
    times: Int
    """How many faults in a row were like it, with nothing committed between; the third fails the job."""


class Status(Part):
    """What the operator observed."""

    observed_generation: Int | None = None
    """Generation of the manifest that this status is for."""
    accepted_generation: Int | None = None
    """Generation of the manifest that was accepted last. Once there is one, task, model, data, script and storage stay
    as they are."""
    state: Word | None = None
    """One word for people, derived from the conditions; programs read the conditions."""
    reason: Word | None = None
    """Why it is in this state, in one word."""
    message: Line | None = None
    """Why it is in this state, and what to do about it."""
    conditions: Annotated[list[Condition], Field(max_length=16)] | None = None
    """What holds of the job; wait for one with kubectl wait --for=condition=TYPE."""
    start_time: Time | None = None
    """When the operator began to run it, or resumed it."""
    completion_time: Time | None = None
    """When it ended, complete or failed."""
    pending_since: Time | None = None
    """Since when not all workers run."""
    step: Int | None = None
    """Optimizer steps done."""
    steps: Int | None = None
    """Optimizer steps in all."""
    progress_percentage: Int | None = None
    """Steps done, in percent of all, rounded down."""
    estimated_remaining_seconds: Int | None = None
    """Seconds that are left at the speed of this attempt."""
    columns: Columns | None = None
    """The numbers above in words, as kubectl get shows them."""
    loss: Word | None = None
    """The loss that was logged last: a decimal number in a string (`"0.3567"`)."""
    phase: Word | None = None
    """What the training processes are doing: starting, preparing, training, evaluating, exporting, restarting."""
    metrics: Annotated[list[Metric], Field(max_length=METRICS)] | None = None
    """What the newest evaluation measured."""
    checkpoint: Word | None = None
    """The newest committed checkpoint."""
    attempt: Int | None = None
    """Number of the attempt that runs."""
    attempts: Annotated[list[AttemptStatus], Field(max_length=10)] | None = None
    """The newest attempts, with why the one before each ended and what that cost."""
    restarts: Int | None = None
    """Faults so far after which the job was started again. Being asked to leave, or losing a node, is no fault."""
    restart_times: Annotated[list[Time], Field(max_length=FAULTS)] | None = None
    """When the faults of the current window were counted."""
    excused_time: Time | None = None
    """When a pod of the current attempt was asked to leave: what that breaks is no fault."""
    fault: Line | None = None
    """What has cost it a pod, until it runs again."""
    retry_time: Time | None = None
    """When lost pods are replaced, while that waits."""
    stuck: Int | None = None
    """Faults in a row with no checkpoint committed between them: each waits longer than the one before."""
    restarted_from: Word | None = None
    """The newest checkpoint at the last fault."""
    last_end: LastEnd | None = None
    """How the pod of the newest fault ended, where only the pod shows it."""
    handled: Annotated[list[Word], Field(max_length=64)] | None = None
    """Pods (by uid) whose end has been counted."""
    active_seconds: Int | None = None
    """Seconds that it was active before it was suspended, all times together."""
    goodput_percentage: Int | None = None
    """Share of all attempts' time that went into steps which count, in percent, by the attempt's own accounting."""
    dashboard: Line | None = None
    """Address of the Ray dashboard inside the cluster; `trainyard dashboard` opens it from outside."""
    result_uri: Line | None = None
    """Where the final model is, once the job is complete."""
