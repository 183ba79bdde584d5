"""What a pod without credentials cannot do, said in words instead of a connection error after a minute.

Every way of an app to its broker or its result backend is closed, so that a task which calls `.delay()` in its body
fails at once with the name of the setting that would allow it. Imported by the pod's entry point: light.
"""

from typing import Any, NoReturn

from dispatcher import errors

_TO_BROKER = ("connection_for_read", "connection_for_write", "connection_or_acquire", "producer_or_acquire")
_TO_BACKEND = ("_get_backend",)


def withhold(app: Any, *, queue: str) -> None:
    """Closes the ways of an app to broker and result backend. The app belongs to this pod alone."""
    app.__dict__.update(dict.fromkeys(_TO_BROKER, _Refusal("send a task or a command", queue)))
    app.__dict__.update(dict.fromkeys(_TO_BACKEND, _Refusal("read or write a result or a state", queue)))


class _Refusal:
    """What stands in for a method."""

    def __init__(self, what: str, queue: str) -> None:
        self._what = what
        self._queue = queue

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:  # noqa: ARG002 - any signature
        raise errors.PodFailed(
            f"this task wanted to {self._what}, but its pod holds no credentials of the broker or the result backend; "
            f'set credentials = "inherit" and credentials_secret for the queue {self._queue!r} to give it some',
            {"reason": "NoCredentials", "cause": "application"},
        )
