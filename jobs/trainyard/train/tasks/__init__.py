"""The tasks by transformers' names: what each reads, how it is encoded, collated and measured."""

from trainyard.train.tasks import image, sequence, text, tokens
from trainyard.train.tasks.base import Task

TABLE: dict[str, Task] = {task.info.name: task for task in (*text.TASKS, *tokens.TASKS, *sequence.TASKS, *image.TASKS)}
