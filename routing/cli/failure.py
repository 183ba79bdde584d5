"""A failure as people see it: one line that says what is wrong and what to do.

`program.run` asks `describe` for every exception that reaches it. Errors of ours carry their line already; foreign ones
are put into words here, found by their class's name so that no library is loaded just to say that it failed.
"""

from collections.abc import Mapping

import click

from routing.cli import plaintext


class Failure(click.ClickException):
    """A command cannot do what was asked."""


OURS = frozenset(
    {
        "ClusterError",
        "DispatcherError",
        "EmbeddedError",
        "InvalidRules",
        "RecordError",
        "RoutingError",
        "SettingsError",
    }
)
"""Our errors, and thereby what derives from them: their text is the line."""

HINTS: Mapping[str, str] = {
    "redis.exceptions.ConnectionError": "is the broker running (`podyard standalone`), and is broker.url right?",
    "redis.exceptions.TimeoutError": "is the broker running, and is broker.url right?",
    "redis.exceptions.AuthenticationError": "correct the password in broker.url and results.url",
    "kombu.exceptions.OperationalError": "is the broker running (`podyard standalone`), and is broker.url right?",
    "sqlalchemy.exc.OperationalError": "is the database running, and is database.url right?",
    "sqlalchemy.exc.ProgrammingError": "do the tables fit this version? `podyard db check` says",
    "sqlalchemy.exc.DatabaseError": "is database.url right?",
    "builtins.PermissionError": "correct its permissions, or choose another folder",
    "builtins.FileNotFoundError": "correct the path",
}
"""What to do about errors of others, by the class's full name."""


def describe(error: BaseException) -> str | None:
    """The line for an error that is expected to happen, or None for one that is a defect."""
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "podyard"
        return f"{_sentence(error.format_message())} (see `{command} --help`)"
    if isinstance(error, click.ClickException):
        return plaintext.line(error.format_message())
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__]
    if any(kind.__name__ in OURS for kind in type(error).__mro__):
        return plaintext.line(str(error))
    hint = next((HINTS[name] for name in names if name in HINTS), None)
    if hint is None:
        return None
    return f"{plaintext.line(_text(error))}; {hint}"


def describe_defect(error: BaseException) -> str:
    """The line for what nobody expected."""
    return plaintext.line(
        f"unexpected {type(error).__name__}: {error}; run it again with --debug for the traceback, and report it"
    )


def _text(error: BaseException) -> str:
    """The first line: SQLAlchemy adds the statement and a link after it."""
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, OSError) and cause.strerror:
        return f"{cause.filename}: {cause.strerror}" if cause.filename else cause.strerror
    return str(cause).partition("\n")[0] or type(cause).__name__


def _sentence(text: str) -> str:
    return plaintext.line(text).rstrip(".")
