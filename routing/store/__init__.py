"""The record: every DAG, run, task instance and attempt in SQL. The one place that speaks SQL on the routing side.

`Store` answers people, `Ledger` is the scheduler's transaction, `states` the one table of states and moves. SQLAlchemy
is heavy and states are needed by pure modules, so the names here are imported when they are first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routing.store.ledger import Ledger
    from routing.store.store import Store
    from routing.store.store_errors import Conflict, DatabaseUnavailable, LeaseLost, RecordError, SchemaError

__all__ = ["Conflict", "DatabaseUnavailable", "LeaseLost", "Ledger", "RecordError", "SchemaError", "Store"]

_HOMES = {
    **dict.fromkeys(("Conflict", "DatabaseUnavailable", "LeaseLost", "RecordError", "SchemaError"), "store_errors"),
    "Ledger": "ledger",
    "Store": "store",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
