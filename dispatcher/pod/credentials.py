"""What a pod without credentials cannot do, said in words instead of a connection error after a minute.

Every way of an app to its broker or its result backend is closed, so that a task which calls `.delay()` in its body
fails at once with the name of the setting that would allow it. What reads and sends nothing stays possible: to make an
`AsyncResult` of an id and pass it on, to call another task on the spot. Imported by the pod's entry point: light.
"""

from typing import Any, NoReturn

from celery.backends.base import DisabledBackend

from dispatcher import errors

_TO_BROKER = ("connection_for_read", "connection_for_write", "connection_or_acquire", "producer_or_acquire")

_OF_BACKEND = (
    *("store_result", "forget", "wait_for", "wait_for_pending", "get_many", "iter_native", "task_result_exists"),
    *("get_state", "get_status", "get_result", "get_traceback", "get_children", "get_task_meta", "get_task_meta_for"),
    *("reload_task_result", "get_group_meta", "reload_group_result", "restore_group", "save_group", "delete_group"),
    *("add_to_chord", "set_chord_size", "apply_chord", "ensure_chords_allowed"),
)


def withhold(app: Any, *, queue: str) -> None:
    """Closes the ways of an app to broker and result backend. The app belongs to this pod alone."""
    # On the object, not on its class: the class is Celery's, and
    # other applications in this process are not ours to close.
    app.__dict__.update(dict.fromkeys(_TO_BROKER, _Refusal("send a task or a command", queue)))
    app._backend = _NoBackend(app, queue=queue)  # noqa: SLF001 - what `app.backend` answers from then on, in this thread and others


class _Refusal:
    """What stands in for a method."""

    def __init__(self, what: str, queue: str) -> None:
        self._what = what
        self._queue = queue

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:  # any signature
        raise errors.PodFailed(
            f"this task wanted to {self._what}, but its pod holds no credentials of the broker or the result backend; "
            f'set credentials = "inherit" and credentials_secret for the queue {self._queue!r} to give it some',
            {"reason": "NoCredentials", "cause": "application"},
        )


class _NoBackend(DisabledBackend):
    """What stands in for a result backend: results may be made, held and dropped, and nothing be asked or stored.

    Tasks that are called on the spot (`Task.apply`) store nothing, and use the rest of a backend.
    """

    def __init__(self, app: Any, *, queue: str) -> None:
        super().__init__(app)
        self._refusal = _Refusal("read or write a result or a state", queue)
        self.__dict__.update(dict.fromkeys(_OF_BACKEND, self._refusal))

    def __getattr__(self, name: str) -> _Refusal:
        """What other backends have, such as `client`."""
        # `copy`, `pickle` and `hasattr` ask for such names and count on an AttributeError.
        if name.startswith("_"):
            raise AttributeError(name)
        return self._refusal
