"""The context of a running task: what a body may ask for about its run, by argument name or `get_current_context()`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, NoReturn

from routing.errors import RoutingError

NAMES = frozenset(
    {
        "attempt_id",
        "conf",
        "dag_id",
        "ds",
        "ds_nodash",
        "logical_date",
        "map_index",
        "params",
        "run_id",
        "task_id",
        "try_number",
        "ts",
        "ts_nodash",
    }
)
"""The keys of a context; a callable's parameter of this name is filled from it."""

_current: ContextVar[Mapping[str, Any]] = ContextVar("podyard_task_context")


class Context(dict[str, Any]):
    """The context of one task run; the error for a missing key lists those that it has."""

    def __missing__(self, key: str) -> NoReturn:
        """Airflow's `ti`, `task_instance` and others are what people look for here."""
        raise KeyError(f"{key!r} is not in the context of a task; there are {', '.join(sorted(self))}")


def build(message: Mapping[str, Any], *, params: Mapping[str, Any], attempt_id: str | None) -> Context:
    """The context of one task run, from the arguments of its message and the defaults of its DAG's `params`."""
    logical_date = _aware(message.get("logical_date"))
    ds = logical_date.date().isoformat()
    conf = message.get("conf") or {}
    return Context(
        attempt_id=attempt_id,
        conf=conf,
        dag_id=message["dag_id"],
        ds=ds,
        ds_nodash=ds.replace("-", ""),
        logical_date=logical_date,
        map_index=message.get("map_index", -1),
        # What the run was started with wins over the DAG's defaults, as in Airflow.
        params={**params, **conf},
        run_id=message.get("run_id"),
        task_id=message["task_id"],
        try_number=message.get("try_number", 1),
        ts=logical_date.isoformat(),
        ts_nodash=logical_date.strftime("%Y%m%dT%H%M%S"),
    )


@contextmanager
def active(context: Mapping[str, Any]) -> Iterator[None]:
    """`get_current_context` gives this context inside the block."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


def get_current_context() -> Mapping[str, Any]:
    """The context of the running task: ds, ts, run_id, dag_id, task_id, try_number, logical_date, params, conf …

    Raises RoutingError outside of a running task, for example while a DAG file is loaded.
    """
    try:
        return _current.get()
    except LookupError:
        raise RoutingError(
            "get_current_context() works only inside the body of a running task, not while a DAG is loaded"
        ) from None


def _aware(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    value = datetime.fromisoformat(text)
    return value if value.tzinfo else value.replace(tzinfo=UTC)
