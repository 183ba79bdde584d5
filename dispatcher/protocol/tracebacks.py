"""Tracebacks: where an exception comes from, in the author's part alone. Imported by every pod: light.

What stands before the author's first line (our own calls, Celery's, the import system's) says nothing to anybody who
wrote the task, on either side. That holds for each exception of a chain and of a group; what the author's code calls
stays. Called where a body has just failed; an exception is changed in place, since it is shown nowhere else.
"""

import traceback
from types import TracebackType

_NOT_THE_AUTHORS = frozenset({"billiard", "celery", "dispatcher", "importlib", "routing", "runpy"})


def of_author(error: BaseException) -> str:
    """The text of an exception with its causes, contexts, members and notes, each from the author's first line on.

    One that never left our own code has no lines: its message says it all.
    """
    _trim(error)
    return "".join(traceback.format_exception(error))


def keep(error: BaseException) -> str:
    """The same; whoever stores the exception later, with the lines that it has by then, finds the text by `kept`."""
    text = of_author(error)
    error.__dict__[_KEPT] = text
    return text


def kept(error: object) -> str | None:
    """The text that was kept, if one was."""
    found = getattr(error, _KEPT, None)
    return found if isinstance(found, str) else None


_KEPT = "_podyard_traceback"


def _trim(error: BaseException) -> None:
    todo, seen = [error], set[int]()
    while todo:
        one = todo.pop()
        # Chains may be circles: `raise a from b` where b was raised from a.
        if id(one) in seen:
            continue
        seen.add(id(one))
        one.__traceback__ = _authors_part(one.__traceback__)
        members = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        todo += [other for other in (one.__cause__, one.__context__, *members) if other is not None]


def _authors_part(trace: TracebackType | None) -> TracebackType | None:
    # Only what stands before the author's first line: Celery's lines in between say whom the author called.
    while trace is not None and _package(trace) in _NOT_THE_AUTHORS:
        trace = trace.tb_next
    return trace


def _package(trace: TracebackType) -> str:
    return str(trace.tb_frame.f_globals.get("__name__") or "").partition(".")[0]
