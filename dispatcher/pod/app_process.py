"""The process of a Celery application inside a pod, prepared as Celery's prefork pool prepares its own.

The same modules are imported, the same log formats hold, the same signals are sent, in the same order
(`celery.concurrency.prefork.process_initializer`). Imported by the pod's entry point: light.
"""

import logging
import os
from collections.abc import Sequence
from typing import Any

from celery import signals
from celery._state import _set_task_join_will_block
from celery.app.utils import find_app
from celery.exceptions import NotRegistered

from dispatcher import errors

INCLUDE_ENV = "PODYARD_INCLUDE"
"""Modules that the dispatcher is configured to import beside the application's own (`-I`), with commas between."""
LOG_LEVEL = logging.INFO


def prepare(app_path: str, *, include: Sequence[str] = ()) -> Any:
    """The application, finalized, with its modules imported and its logs set up.

    Raises PodFailed where this pod's image does not have it, LookupError where nobody said which, and whatever its
    modules raise when they are imported.
    """
    _set_task_join_will_block(True)  # a body that waits for another task is refused, as by Celery
    app = _found(app_path)
    # Both: `current_app` in this thread, and in the threads that the body starts.
    app.set_current()
    app.set_default()
    app.loader.init_worker()
    for module in include:
        # Through the loader, so that what a failing import raises is what a worker started with `-I` would show.
        app.loader.import_task_module(module)
    app.loader.init_worker_process()
    app.finalize()
    app.log.setup(LOG_LEVEL, colorize=False, hostname=hostname())
    signals.worker_process_init.send(sender=hostname())
    return app


def task(app: Any, name: str, *, app_path: str) -> Any:
    """A task of the application. Raises Celery's NotRegistered."""
    if name not in app.tasks:
        raise NotRegistered(
            f"{name!r} is not a task of {app_path} in this pod's image; is the image older than the task?"
        )
    return app.tasks[name]


def finish(exit_code: int) -> None:
    """What Celery says when a process of its pool ends."""
    signals.worker_process_shutdown.send(sender=hostname(), pid=os.getpid(), exitcode=exit_code)


def hostname() -> str:
    """The pod's name."""
    return os.environ.get("HOSTNAME", "")


def _found(app_path: str) -> Any:
    """As `celery -A` finds it."""
    if not app_path:
        raise LookupError("PODYARD_APP is not set: the pod does not know which Celery app has the task")
    try:
        return find_app(app_path)
    except ModuleNotFoundError as error:
        # A module that the application imports and the image lacks is the author's own traceback.
        if not _is_part_of(app_path, error.name):
            raise
        raise errors.PodFailed(
            f"the image of this pod lacks the application {app_path}: there is no module {error.name!r} in it; build "
            "the image with the application, or set PYTHONPATH to where it stands",
            {"reason": "AppMissing", "cause": "application"},
        ) from error


def _is_part_of(app_path: str, module: str | None) -> bool:
    """Whether a module is the application's own, or a package around it."""
    path = app_path.partition(":")[0]
    return module is not None and f"{path}.".startswith(f"{module}.")
