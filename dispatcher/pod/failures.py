"""Failures: an exception of a body as data, as Celery's prefork pool would report it. Imported by the entry point."""

from typing import Any

from celery.utils.serialization import ensure_serializable, get_pickleable_exception

from dispatcher.protocol import outcome, tracebacks, typed_json


def of(error: BaseException) -> outcome.Failure:
    """Class, arguments and traceback of an exception.

    One that cannot be made again from its arguments travels as its nearest ancestor that can, or wrapped: prefork's
    processes pickle exceptions, and whoever reads the result sees the same from both.
    """
    text = tracebacks.of_author(error)
    # In a prefork process it would end the worker's child; here it is told as what it is.
    if isinstance(error, SystemExit):
        return ours(f"the body called sys.exit({error.code!r})", reason="Error", text=text, exit_code=_exit_code(error))
    sent = get_pickleable_exception(error)
    return outcome.Failure(
        type=type(sent).__qualname__,
        module=type(sent).__module__,
        args=ensure_serializable(sent.args, typed_json.dumps),
        traceback=outcome.shortened(text),
    )


def ours(message: str, *, reason: str, text: str = "", **details: Any) -> outcome.Failure:
    """A failure that we find, and not the body."""
    facts = {"reason": reason, "cause": "application", **details}
    return outcome.Failure(
        type="PodFailed", module="dispatcher.errors", args=[message, facts], traceback=outcome.shortened(text)
    )


def _exit_code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    # A text means 1, as Python's own exit does.
    return error.code if isinstance(error.code, int) else 1
