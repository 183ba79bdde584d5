"""`dispatcher.pod`: a Celery task whose whole body is a pod of any image.

The task's keyword arguments are the pod's; no worker slot waits for it. What a chain passes on, the result of the task
before, is not looked at. Sent to a queue of Celery workers by mistake it fails with a message that says so. An app
makes the task its own by `register`; a dispatcher does that for the app that it serves.
"""

from typing import Any

from celery import Celery

from dispatcher import errors
from dispatcher.manifests import builder


def register(app: Celery) -> Any:
    """Gives the app the task `dispatcher.pod`, once; returns the task."""
    if builder.ANY_IMAGE_TASK in app._tasks:  # `app.tasks` would finalize the app too early
        return app._tasks[builder.ANY_IMAGE_TASK]

    # `shared=False`: only this application has it, not every other one of the process.
    @app.task(name=builder.ANY_IMAGE_TASK, shared=False)
    def pod(*args: Any, **kwargs: Any) -> None:  # the dispatcher reads them from the message
        raise errors.PodFailed(
            "dispatcher.pod ran in a Celery worker: its body is a pod, so send it to a queue of the Kubernetes side",
            {"reason": "WrongSide", "cause": "application"},
        )

    return pod
