"""What faults cost: measured in tests, printed as a table when they are over."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What a fault cost."""

    fault: str
    noticed: float | None
    """Seconds from the fault to the first sign of it; None where there is nothing to notice."""
    recovered: float
    """Seconds to the first step, or the commit, after it: from the fault, or from its end where it lasts."""
    lost: int = 0
    """Committed steps that are gone."""
    duplicates: int = 0
    """Pods of one index that ran at the same time."""


COSTS: list[Cost] = []
"""Of this session's tests, in the order in which they came."""


def table(costs: list[Cost]) -> str:
    """The costs, a row each."""
    rows = [f"{'fault':<52}{'noticed':>9}{'recovered':>11}{'steps lost':>12}{'duplicates':>12}"]
    for cost in costs:
        noticed = "–" if cost.noticed is None else f"{cost.noticed:.1f}s"
        rows.append(f"{cost.fault:<52}{noticed:>9}{cost.recovered:>10.1f}s{cost.lost:>12}{cost.duplicates:>12}")
    return "\n".join(rows)
