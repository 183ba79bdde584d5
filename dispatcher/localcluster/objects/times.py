"""Times as Kubernetes writes them: RFC 3339, UTC, whole seconds. Pure but for `now`."""

from datetime import UTC, datetime, timedelta


def now() -> datetime:
    """The time of day, aware."""
    return datetime.now(UTC)


def write(moment: datetime) -> str:
    """`2030-01-31T12:00:00Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_micro(moment: datetime) -> str:
    """`2030-01-31T12:00:00.000000Z`, as log lines have it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def read(text: str) -> datetime:
    """The other way; raises ValueError."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def before_now(seconds: float) -> datetime:
    """So many seconds ago."""
    return now() - timedelta(seconds=seconds)
