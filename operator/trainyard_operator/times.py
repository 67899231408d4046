"""Moments, as Kubernetes writes them, and what is left of a limit: pure."""

from datetime import datetime


def text_of(moment: datetime) -> str:
    """A moment in UTC, to the second, as 2026-01-31T12:00:00Z."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def moment_of(text: str) -> datetime:
    """The moment of a text that Kubernetes or text_of() has written. Raises ValueError for another."""
    return datetime.fromisoformat(text)


def seconds_left(since: str | None, limit: int | None, now: datetime) -> float | None:
    """Seconds until a limit after a moment, 0 when it has passed; None without a limit."""
    if since is None or limit is None:
        return None
    return max(0.0, limit - (now - moment_of(since)).total_seconds())


def duration_text(seconds: int) -> str:
    """Seconds as kubectl writes an age: 45s, 3m10s, 2h5m."""
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60}m"
