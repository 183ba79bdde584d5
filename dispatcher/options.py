"""What the dispatcher is told: a profile per queue, and the options of one dispatcher process.

`routing.celery_app` fills `app.conf.podyard` with an `Options`. Pure values; nothing here reads files or environment.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dispatcher import errors


@dataclass(frozen=True, kw_only=True)
class QueueProfile:
    """How pods of one queue are made, limited and kept."""

    template: str = "default"
    """A name in `templates/`, or a path to a pod template."""
    namespace: str = "default"
    max_pods: int = 100
    """Pods of this queue in flight at once, over one dispatcher."""
    image: str | None = None
    """Replaces the template's base image when set; an override of the task wins over it."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Plain environment variables for the base container. Not for secrets: whoever may read pods reads them."""
    keep_finished_s: float = 0.0
    """Seconds that a finished pod stays visible after its outcome and log are stored."""
    delete: str = "always"
    """`always`, `succeeded` (failed pods stay) or `never`."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of one dispatcher process."""

    profile_for: Callable[[str], QueueProfile]
    """Queue name -> its profile; raises LookupError for a queue that is not on the Kubernetes side."""
    app_path: str
    """`module:attribute` of the Celery app that pods import."""
    deployment: str = "default"
    namespaces: tuple[str, ...] = ("default",)
    """Watched from the start, so that pods found there are adopted; others are watched from their first pod on."""
    kubeconfig: Path | None = None
    context: str | None = None
    in_cluster: bool | None = None
    """None: in-cluster if a service account is mounted, else the kubeconfig."""
    image: str | None = None
    database_url: str | None = None
    """Where pod status is stored for people; None stores nothing."""
    log_folder: Path | None = None
    """Where logs of pods are saved before deletion; None saves none."""
    log_max_bytes: int = 10_485_760
    result_max_bytes: int = 1_048_576
    create_concurrency: int = 64
    """Create requests in flight at once. A server on loopback gains nothing beyond 16; one that is 150 ms away does."""


def from_app(app: Any) -> Options:
    """The options that a Celery app carries in `app.conf.podyard`.

    Raises DispatcherError where it carries none.
    """
    options = app.conf.get("podyard")
    if not isinstance(options, Options):
        raise errors.DispatcherError(
            f"the Celery app {app.main or '(without a name)'} has no options for pods: set app.conf.podyard to a "
            "dispatcher.options.Options, or start it by `podyard dispatcher`"
        )
    return options
