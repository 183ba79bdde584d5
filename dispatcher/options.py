"""What the dispatcher is told: a profile per queue, and the options of one dispatcher process.

`routing.worker.celery_app` fills `app.conf.podyard` with an `Options`; for other applications `app_config` makes one.
Pure values; nothing here reads files or environment.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dispatcher.policy import Policy


@dataclass(frozen=True, kw_only=True)
class QueueProfile:
    """How pods of one queue are made, limited and kept."""

    template: str = "default"
    """A name in `templates/`, or a path to a pod template."""
    namespace: str = "default"
    max_pods: int = 100
    """Pods of this queue in flight at once, over all dispatchers of the deployment."""
    image: str | None = None
    """Replaces the template's base image when set; an override of the task wins over it."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Plain environment variables for the base container. Not for secrets: whoever may read pods reads them."""
    keep_finished_s: float = 0.0
    """Seconds that a finished pod stays visible after its outcome and log are stored."""
    delete: str = "always"
    """`always`, `succeeded` (failed pods stay) or `never`. A pod task's `on_finish_action` wins over it."""
    schedule_timeout_s: float = 3600.0
    """How long a node may be looked for; then the pod is deleted and its attempt fails. 0: for ever."""
    startup_timeout_s: float = 3600.0
    """How long the container may take to start, once a node is found. 0: for ever."""
    waits: Mapping[str, str] = field(default_factory=dict)
    """Kind of wait -> its rule, such as `{"image": "fail after 10m"}`; `wait_rules` knows kinds and defaults."""
    memory_growth: float | None = None
    """A task that was killed for its memory is tried again with so many times the memory; None: not. Only the scheduler
    of DAGs does that: the body of a plain Celery task is dead and cannot retry itself."""
    memory_growth_max: str | None = None
    """How far memory may grow, such as `8Gi`."""
    avoid_failed_nodes: bool = False
    """A retry after a node's failure prefers other nodes."""
    credentials: str = "none"
    """`none`: the outcome comes back through the pod and is replayed. `inherit`: the pod reaches broker and result
    backend itself, stores its own result, and its task may send tasks."""
    credentials_secret: str | None = None
    """With `inherit`: the Secret whose keys become variables of the pod's environment, where the app reads them."""
    payload: str = "inline"
    """`secret`: arguments always travel in a Secret owned by the pod; `inline`: only where they are large."""


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
    verify_ssl: bool = True
    in_cluster: bool | None = None
    """None: in-cluster if a service account is mounted, else the kubeconfig."""
    max_pods: int | None = None
    """Pods of this deployment in flight at once, over all queues, namespaces and dispatchers. None: no limit."""
    max_pods_by_namespace: Mapping[str, int] = field(default_factory=dict)
    """The same by namespace."""
    create_rate: float = 0.0
    """Creates a second that this dispatcher sends in the long run. 0: no limit."""
    create_burst: int = 100
    """With `create_rate`: so many at once after a quiet time."""
    limits_namespace: str | None = None
    """Where the ConfigMap is in which dispatchers share out the limits; None: the first of `namespaces`."""
    image: str | None = None
    database_url: str | None = None
    """Where pod status is stored for people; None stores nothing."""
    log_folder: Path | None = None
    """Where logs of pods are saved before deletion; None saves none."""
    health_folder: Path | None = None
    """Where the process writes what it lacks (`process_health`); None writes nothing."""
    log_max_bytes: int = 10_485_760
    result_max_bytes: int = 1_048_576
    policy: Policy = field(default_factory=Policy)
    """What no pod may be."""
    pod_mutation_hook: str | None = None
    """`module:function` that is called with every manifest before its identity is set."""
    xcom_sidecar_image: str = "busybox:1.37"
    """Runs beside pods of any image that leave a result; it needs sh, base64 and sha256sum."""
    create_concurrency: int = 64
    """Create requests in flight at once. A server on loopback gains nothing beyond 16; one that is 150 ms away does."""
