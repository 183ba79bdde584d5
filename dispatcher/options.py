"""What the dispatcher is given: a profile per queue, and the options of one dispatcher process.

`QueueProfile` is the one table of the keys that a queue's rule may have: the settings file, a Celery application's
configuration, the environment and the docs are read and written by it. `routing.worker.celery_app` fills
`app.conf.podyard` with an `Options`; for other applications `app_config` makes one. Nothing here reads files or
environment.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from dispatcher import constraints
from dispatcher.constraints import about
from dispatcher.policy import Policy


@dataclass(frozen=True, kw_only=True)
class QueueProfile:
    """How pods of one queue are made, limited and kept. A new key is a new field here, and nothing else."""

    template: Annotated[
        constraints.Template,
        about("The pod template: the name of a shipped one, or a path (with a `/` or a dot in it)"),
    ] = "default"
    namespace: Annotated[constraints.Namespace, about("Where its pods are made")] = "default"
    max_pods: Annotated[
        constraints.Count, about("Pods of this queue in flight at once, over all dispatchers of the deployment")
    ] = 100
    image: Annotated[constraints.Text | None, about("The image of the container `base`, instead of the template's")] = (
        None
    )
    """An override of the task wins over it."""
    env: Annotated[
        constraints.Environment,
        about("Environment variables for the container `base`. Not for secrets: whoever may read pods reads them"),
    ] = field(default_factory=dict)
    keep_finished_s: Annotated[
        constraints.Delay, about("Seconds that a finished pod stays after its outcome and log are stored")
    ] = 0.0
    delete: Annotated[
        Literal["always", "succeeded", "never"], about('`"always"`, `"succeeded"` (failed pods stay) or `"never"`')
    ] = "always"
    """A pod task's `on_finish_action` wins over it."""
    schedule_timeout_s: Annotated[
        constraints.Delay,
        about(
            "How long a node may be looked for; then the pod is deleted and its attempt ends as a fault of the"
            " infrastructure. 0: for ever. `waits.unschedulable` wins over it"
        ),
    ] = 3600.0
    startup_timeout_s: Annotated[
        constraints.Delay,
        about(
            "How long the container may take to start, once a node is found. 0: for ever. `waits.image`, `config`,"
            " `volume` and `start` win over it"
        ),
    ] = 3600.0
    waits: Annotated[
        constraints.Waits, about("For each kind of wait, how long it may last and what happens then; see below")
    ] = field(default_factory=dict)
    memory_growth: Annotated[
        constraints.Growth | None,
        about(
            "A task of a DAG that was killed for its memory is tried again with so many times the memory (above 1, up"
            " to 10); it needs `memory_growth_max`. See [pods.md](pods.md#out-of-memory)"
        ),
    ] = None
    """Only the scheduler of DAGs does that: the body of a plain Celery task is dead and cannot retry itself."""
    memory_growth_max: Annotated[
        constraints.Memory | None, about('How far request and limit grow, such as `"8Gi"`')
    ] = None
    avoid_failed_nodes: Annotated[
        constraints.Flag, about("Whether a retry after a node's failure prefers other nodes")
    ] = False
    credentials: Annotated[
        Literal["none", "inherit"],
        about(
            '`"none"`: the outcome comes back through the pod. `"inherit"`: the pod reaches broker and result backend'
            " itself ([celery.md](celery.md))"
        ),
    ] = "none"
    """`none`: the outcome is replayed by the dispatcher. `inherit`: the pod stores its own result, and its task may
    send tasks."""
    credentials_secret: Annotated[
        constraints.Text | None,
        about('With `"inherit"`: the Secret whose keys become environment variables of the pod'),
    ] = None
    payload: Annotated[
        Literal["inline", "secret"],
        about('`"secret"`: arguments always travel in a Secret owned by the pod; `"inline"`: only those over 64 KiB'),
    ] = "inline"


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of one dispatcher process; `dispatcher.settings.sections` says what may be written for each."""

    profile_for: Callable[[str], QueueProfile]
    """Queue name -> its profile; raises LookupError for a queue that is not on the Kubernetes side."""
    app_path: str
    """`module:attribute` of the Celery app that pods import."""
    include: tuple[str, ...] = ()
    """Modules that pods import beside those that the app itself names (`celery worker -I`)."""
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
    """Runs beside container tasks that leave a result; it needs sh, base64 and sha256sum."""
    create_concurrency: int = 64
    """Create requests in flight at once. A server on loopback gains nothing beyond 16; one that is 150 ms away does."""
