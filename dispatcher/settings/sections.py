"""The sections of the settings that a dispatcher needs: keys, defaults, what is allowed and what each does.

Where a default depends on where the process runs (a file in the home folder), the field's own stands for "not set".
An installation (`routing.config.sections`) has these and more; a Celery application has these alone, under flat names
(`app_keys`). A new key is a new field, here or in `routing.config.sections`, and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from msgspec import Meta

from dispatcher import constraints, policy
from dispatcher.constraints import about

KeyPath = tuple[str, ...]
"""("deployment",), ("broker", "url") or ("queues", "gpu-*", "max_pods")."""

DatabaseUrl = Annotated[
    str,
    Meta(
        pattern=r"\A(sqlite:////?(?!.*:memory:).+|postgresql\+psycopg://.+)\Z",
        title="a URL such as sqlite:////srv/podyard.db (a file, not memory) or postgresql+psycopg://user:password@host/name",
    ),
]


@dataclass(frozen=True, kw_only=True)
class Top:
    """The keys that stand outside of any section."""

    deployment: Annotated[
        str,
        Meta(
            # A label value of Kubernetes: it is in every selector of ours.
            pattern=r"\A[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?\Z",
            title="1 to 63 letters, digits, dashes, dots and underscores, with a letter or digit at both ends",
        ),
        about("The id of this installation. Two installations that share a broker or a namespace need two ids."),
    ] = "default"


@dataclass(frozen=True, kw_only=True)
class Results:
    """What comes back."""

    max_bytes: Annotated[constraints.Count, about("The largest result (as JSON) that a task may return.")] = 1_048_576


@dataclass(frozen=True, kw_only=True)
class Database:
    """The record of pods, and of runs, tasks and attempts."""

    url: Annotated[
        DatabaseUrl,
        about("SQLite for one machine, PostgreSQL for more. Default: `podyard.db` in the home folder."),
    ] = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class Logs:
    """What tasks print."""

    folder: Annotated[constraints.Folder, about("One file per attempt. Default: `logs` in the home folder.")] = Path(
        "logs"
    )
    max_bytes: Annotated[constraints.Count, about("Where a log is cut, with a marker.")] = 10_485_760


@dataclass(frozen=True, kw_only=True)
class Health:
    """What each process says of itself, for `podyard health` and for health checks."""

    folder: Annotated[
        constraints.Folder,
        about("A small file per process: which parts are away. Default: `health` in the home folder."),
    ] = Path("health")


@dataclass(frozen=True, kw_only=True)
class Kubernetes:
    """How the dispatcher reaches the API server, and what its pods run."""

    kubeconfig: Annotated[
        constraints.File | None,
        about("Default: `KUBECONFIG`, then `~/.kube/config`.", allowed="the path of a kubeconfig"),
    ] = None
    context: Annotated[constraints.Text | None, about("A context of the kubeconfig; default: its current one.")] = None
    in_cluster: Annotated[
        constraints.Flag | None, about("Use the service account of the own pod; default: if one is mounted.")
    ] = None
    namespace: Annotated[constraints.Namespace, about("The namespace of every queue whose rule names none.")] = (
        "default"
    )
    max_pods: Annotated[
        constraints.Count | None,
        about("Pods in flight at once over all queues, namespaces and dispatchers. Default: no limit."),
    ] = None
    max_pods_by_namespace: Annotated[
        constraints.NamespaceCounts, about("The same for single namespaces, over all queues and dispatchers.")
    ] = field(default_factory=dict)
    create_rate: Annotated[
        constraints.Number, about("Pods that one dispatcher creates a second in the long run. 0: no limit.")
    ] = 0.0
    create_burst: Annotated[
        constraints.Count, about("With `create_rate`: pods created at once after a quiet time.")
    ] = 100
    image: Annotated[constraints.Text | None, about("The image of task pods where queue and task name none.")] = None
    app: Annotated[
        str,
        Meta(pattern=r"\A[A-Za-z_][\w.]*(:[A-Za-z_]\w*)?\Z"),
        about("What a task pod imports.", allowed="a Celery app as `celery -A` names it, such as module:attribute"),
    ] = ""
    verify_ssl: Annotated[constraints.Flag, about("Whether the API server's certificate is checked.")] = True
    pod_mutation_hook: Annotated[
        constraints.Reference | None,
        about(
            "Called with every pod's manifest before its identity is set; it changes it or returns another.",
            allowed="module:function of a function that the dispatcher can import",
        ),
    ] = None
    xcom_sidecar_image: Annotated[
        constraints.Text,
        about("Runs beside container tasks that leave a result; it needs `sh`, `base64` and `sha256sum`."),
    ] = "busybox:1.37"


@dataclass(frozen=True, kw_only=True)
class CeleryPatches:
    """What workers and dispatchers change in Celery and kombu, for speed or safety; each can be switched off."""

    ack_batching: Annotated[
        constraints.Flag,
        about("Acknowledgements of one turn reach Redis in one transaction, and are kept while it refuses."),
    ] = True
    atomic_take: Annotated[
        constraints.Flag,
        about("A message is taken from a Redis queue and noted as unacknowledged in one step: a kill loses none."),
    ] = True
    event_batching: Annotated[
        constraints.Flag, about("A dispatcher's events of tasks leave ten times a second, not in each turn.")
    ] = True
    store_script: Annotated[
        constraints.Flag, about("Outcomes reach Celery's own Redis result backend by one round trip, not two.")
    ] = True


SECTIONS: Mapping[str, type[Any]] = MappingProxyType(
    {
        "results": Results,
        "database": Database,
        "logs": Logs,
        "health": Health,
        "kubernetes": Kubernetes,
        "policy": policy.Policy,
        "celery_patches": CeleryPatches,
    }
)
"""Section name -> its table. `queues` is the router's."""

OF_AN_INSTALLATION = frozenset(
    {"home", "broker", "dags", "scheduler", "worker", "flower", "results.url", "results.expires_s"}
)
"""Sections and keys of `routing.config.sections` that mean nothing to a Celery application: their variables may stand
in an environment that it shares with an installation."""


def app_keys() -> Mapping[str, KeyPath]:
    """Key of `app.conf.podyard` -> the setting that it means: those of `kubernetes` by their own names, those of other
    sections with the section before them (`log_folder`), and the whole table `policy`."""
    keys: dict[str, KeyPath] = {"deployment": ("deployment",)}
    for section, table in SECTIONS.items():
        if section == "celery_patches":
            continue  # plain workers have them, too: they stand in `app.conf.podyard_celery_patches`
        prefix = "" if section == "kubernetes" else f"{section.removesuffix('s')}_"
        if section == "policy":
            keys["policy"] = ("policy",)
        else:
            keys |= {f"{prefix}{name}": (section, name) for name in constraints.keys_of(table)}
    return keys
