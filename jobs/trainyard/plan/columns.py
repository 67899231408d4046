"""Which column of a data set plays which part of a task."""

from collections.abc import Sequence

from trainyard.errors import JobError
from trainyard.spec.hints import did_you_mean
from trainyard.spec.tasks import TaskInfo


def chosen(names: Sequence[str], task: TaskInfo, columns: dict[str, str], where: str, source: str) -> dict[str, str]:
    """The name in the data of each column of the task, as the manifest says or by the usual names.

    Raises JobError for a column that is not there, with those that are.
    """
    _check(names, task, columns, where, source)
    by_part: dict[str, str] = {}
    for column in task.columns:
        usual = (column.name, *column.aliases)
        wanted = (columns[column.name],) if column.name in columns else usual
        name = next((each for each in wanted if each in names and each not in by_part.values()), None)
        if name is not None:
            by_part[column.name] = name
        elif not column.optional:
            raise JobError(
                f"spec.{where}: {source} has no column {column.name}; it has {', '.join(names)}. "
                f"Say which it is: columns: {{{column.name}: <column>}}"
            )
    return by_part


def _check(names: Sequence[str], task: TaskInfo, columns: dict[str, str], where: str, source: str) -> None:
    parts = [column.name for column in task.columns]
    for part, name in columns.items():
        if part not in parts:
            hint = did_you_mean(part, parts)
            raise JobError(f"spec.{where}.columns.{part}: {task.name} reads no column {part}. {hint}")
        if name not in names:
            raise JobError(f"spec.{where}.columns.{part}: {source} has no column {name}; it has {', '.join(names)}")
