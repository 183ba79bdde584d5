"""Failures: an exception of a body as data, as Celery's prefork pool would report it. Imported by the entry point."""

import traceback
from typing import Any

from celery.utils.serialization import ensure_serializable, get_pickleable_exception

from dispatcher.protocol import outcome, typed_json

_NOT_THE_AUTHORS = ("dispatcher.pod.", "celery.")


def of(error: BaseException) -> outcome.Failure:
    """Class, arguments and traceback of an exception.

    One that cannot be made again from its arguments is told as its nearest ancestor that can, or wrapped: prefork's
    processes pickle exceptions, and whoever reads the result sees the same from both.
    """
    text = "".join(traceback.format_exception(type(error), error, _authors_part(error)))
    if isinstance(error, SystemExit):
        return ours(f"the body called sys.exit({error.code!r})", reason="Error", text=text, exit_code=_exit_code(error))
    told = get_pickleable_exception(error)
    return outcome.Failure(
        type=type(told).__qualname__,
        module=type(told).__module__,
        args=ensure_serializable(told.args, typed_json.dumps),
        traceback=outcome.shortened(text),
    )


def ours(message: str, *, reason: str, text: str = "", **details: Any) -> outcome.Failure:
    """A failure that we find, and not the body."""
    facts = {"reason": reason, "cause": "application", **details}
    return outcome.Failure(
        type="PodFailed", module="dispatcher.errors", args=[message, facts], traceback=outcome.shortened(text)
    )


def _authors_part(error: BaseException) -> Any:
    """The traceback without our own and Celery's frames at its start."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(_NOT_THE_AUTHORS):
        trace = trace.tb_next
    return trace or error.__traceback__


def _exit_code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    return error.code if isinstance(error.code, int) else 1
