"""The sections of the settings: their keys, defaults, what is allowed and what each means.

`routing.config.settings` reads files and environment into these; `docs/configuration.md` is held against them by a
test. A field's `title` ends the sentence "must be …", its `description` says what it does.
"""

import re
from pathlib import Path
from typing import Annotated, Any, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from dispatcher import policy

BROKER_SCHEMES = ("redis", "rediss", "redis+socket", "sentinel", "amqp", "amqps")
RESULT_SCHEMES = ("redis", "rediss", "redis+socket")
DATABASE_SCHEMES = ("sqlite", "postgresql+psycopg")

_DEPLOYMENT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_APP = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def _check(condition: bool) -> None:
    if not condition:
        raise ValueError


def _scheme(*allowed: str) -> AfterValidator:
    def check(url: str) -> str:
        scheme, separator, rest = url.partition("://")
        _check(bool(separator and rest) and scheme in allowed)
        return url

    return AfterValidator(check)


def _pattern(pattern: re.Pattern[str]) -> AfterValidator:
    def check(text: str) -> str:
        _check(pattern.fullmatch(text) is not None)
        return text

    return AfterValidator(check)


def _shared_database(url: str) -> str:
    _check(not url.startswith("sqlite") or (url.startswith("sqlite:///") and len(url) > 10 and ":memory:" not in url))
    return url


def _of(kind: str, schemes: tuple[str, ...]) -> str:
    return f"a URL of {kind} that begins with one of {', '.join(f'{scheme}://' for scheme in schemes)}"


Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Delay = Annotated[float, Field(ge=0, allow_inf_nan=False)]
NamespaceName = Annotated[str, _pattern(re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"))]

_COUNT = "a whole number of at least 1"
_NATURAL = "a whole number, 0 or more"
_SECONDS = "a number of seconds above 0"
_DELAY = "a number of seconds, 0 or more"
_NUMBER = "a number, 0 or more"
_COUNTS = "a table of namespaces and whole numbers of at least 1 (in the environment as JSON)"
_BOOL = "true or false"
_TEXT = "a text that is not empty"
_TEXTS = "a list of texts (in the environment separated by commas)"
_FOLDER = "the path of a folder"


class Section(BaseModel):
    """What all sections share: no unknown key, no silent conversion, no change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class Top(Section):
    """The keys that stand outside of any section."""

    deployment: Annotated[str, _pattern(_DEPLOYMENT)] = Field(
        "default",
        title="1 to 63 letters, digits, dashes, dots and underscores, with a letter or digit at both ends",
        description="The id of this installation. Two installations that share a broker or a namespace need two ids.",
    )
    home: Path = Field(
        Path(".podyard"), title=_FOLDER, description="Where embedded parts, SQLite and logs live unless told otherwise."
    )


class Broker(Section):
    """Where messages wait."""

    url: Annotated[str, _scheme(*BROKER_SCHEMES)] = Field(
        "redis://127.0.0.1:6379/0", title=_of("a broker", BROKER_SCHEMES), description="The Celery broker.", repr=False
    )


class Results(Section):
    """Where Celery workers and dispatchers leave outcomes for the collector."""

    url: Annotated[str, _scheme(*RESULT_SCHEMES)] = Field(
        "redis://127.0.0.1:6379/0",
        title=_of("a Redis or Valkey server", RESULT_SCHEMES),
        description="The result backend.",
        repr=False,
    )
    max_bytes: Count = Field(
        1_048_576, title=_COUNT, description="The largest result (as JSON) that a task may return."
    )
    expires_s: Count = Field(
        86_400, title="a whole number of seconds, at least 1", description="How long an outcome waits to be collected."
    )


class Database(Section):
    """The record of runs, tasks and attempts."""

    url: Annotated[str, _scheme(*DATABASE_SCHEMES), AfterValidator(_shared_database)] = Field(
        "",
        title="a URL such as sqlite:////srv/podyard.db (a file, not memory) or postgresql+psycopg://user:password@host/name",
        description="SQLite for one machine, PostgreSQL for more. Default: `podyard.db` in the home folder.",
        repr=False,
    )


class Dags(Section):
    """The DAG files."""

    folder: Path = Field(Path("dags"), title=_FOLDER, description="Where DAG files are.")
    load_timeout_s: Seconds = Field(
        30.0, title=_SECONDS, description="After this long a DAG file's loading is given up."
    )
    refresh_s: Seconds = Field(10.0, title=_SECONDS, description="How often changed DAG files are looked for.")


class Logs(Section):
    """What tasks print."""

    folder: Path = Field(
        Path("logs"), title=_FOLDER, description="One file per attempt. Default: `logs` in the home folder."
    )
    max_bytes: Count = Field(10_485_760, title=_COUNT, description="Where a log is cut, with a marker.")


class Health(Section):
    """What each process says of itself, for `podyard health` and for health checks."""

    folder: Path = Field(
        Path("health"),
        title=_FOLDER,
        description="A small file per process: which parts are away. Default: `health` in the home folder.",
    )


class Scheduler(Section):
    """The loop that finds ready tasks and collects outcomes."""

    infra_retries: Annotated[int, Field(ge=0)] = Field(
        3,
        title=_NATURAL,
        description="Retries after faults of the infrastructure; a task's own `retries` are untouched.",
    )
    infra_retry_delay_s: Delay = Field(5.0, title=_DELAY, description="The first wait before such a retry; it grows.")
    max_active_tasks: Count = Field(10_000, title=_COUNT, description="Tasks sent and not ended, over all runs.")
    sweep_s: Seconds = Field(5.0, title=_SECONDS, description="How often open attempts are looked up one by one.")


class Worker(Section):
    """Celery workers started by `podyard worker`."""

    concurrency: Count = Field(4, title=_COUNT, description="Processes of one worker.")


class Kubernetes(Section):
    """How the dispatcher reaches the API server, and what its pods run."""

    kubeconfig: Path | None = Field(
        None, title="the path of a kubeconfig", description="Default: `KUBECONFIG`, then `~/.kube/config`."
    )
    context: Text | None = Field(
        None, title=_TEXT, description="A context of the kubeconfig; default: its current one."
    )
    in_cluster: bool | None = Field(
        None, title=_BOOL, description="Use the service account of the own pod; default: if one is mounted."
    )
    namespace: NamespaceName = Field(
        "default",
        title="a namespace's name: 1 to 63 small letters, digits and dashes",
        description="The namespace of every queue whose rule names none.",
    )
    max_pods: Count | None = Field(
        None,
        title=_COUNT,
        description="Pods in flight at once over all queues, namespaces and dispatchers. Default: no limit.",
    )
    max_pods_by_namespace: dict[NamespaceName, Count] = Field(
        {}, title=_COUNTS, description="The same for single namespaces, over all queues and dispatchers."
    )
    create_rate: Delay = Field(
        0.0, title=_NUMBER, description="Pods that one dispatcher creates a second in the long run. 0: no limit."
    )
    create_burst: Count = Field(
        100, title=_COUNT, description="With `create_rate`: pods created at once after a quiet time."
    )
    image: Text | None = Field(None, title=_TEXT, description="The image of task pods where queue and task name none.")
    app: Annotated[str, _pattern(_APP)] = Field(
        "routing.worker.run:pod_app", title="module:attribute of a Celery app", description="What a task pod imports."
    )
    verify_ssl: bool = Field(True, title=_BOOL, description="Whether the API server's certificate is checked.")
    pod_mutation_hook: Annotated[str, _pattern(_APP)] | None = Field(
        None,
        title="module:function of a function that the dispatcher can import",
        description="Called with every pod's manifest before its identity is set; it changes it or returns another.",
    )
    xcom_sidecar_image: Text = Field(
        "busybox:1.37",
        title=_TEXT,
        description="Runs beside pods of any image that leave a result; it needs `sh`, `base64` and `sha256sum`.",
    )


class Policy(Section):
    """What no pod of this installation may be, whoever asks for it; see docs/pods.md."""

    namespaces: list[Text] = Field(
        [],
        title=_TEXTS,
        description="Where tasks may put their pods, beside the namespaces of the queues. `*` and `?` fit.",
    )
    service_accounts: list[Text] = Field(
        ["default"], title=_TEXTS, description="The service accounts that pods may have. `*` and `?` fit."
    )
    images: list[Text] = Field(["*"], title=_TEXTS, description="The images that containers may run. `*` and `?` fit.")
    host_paths: list[Text] = Field(
        [], title=_TEXTS, description="Folders of the node that pods may mount, with all that is below them."
    )
    host_network: bool = Field(False, title=_BOOL, description="Whether pods may use the node's network.")
    host_pid: bool = Field(False, title=_BOOL, description="Whether pods may see the node's processes.")
    host_ipc: bool = Field(False, title=_BOOL, description="Whether pods may share the node's memory segments.")
    host_ports: bool = Field(False, title=_BOOL, description="Whether containers may take ports of the node.")
    privileged: bool = Field(False, title=_BOOL, description="Whether containers may be privileged.")
    capabilities: list[Text] = Field(
        list(policy.BASELINE_CAPABILITIES), title=_TEXTS, description="The capabilities that containers may add."
    )
    unconfined: bool = Field(
        False, title=_BOOL, description="Whether containers may do without seccomp, AppArmor or a masked /proc."
    )


class Flower(Section):
    """The web page of Celery's side."""

    address: Text = Field("127.0.0.1", title="an address to listen at", description="0.0.0.0 for all interfaces.")
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        5555, title="a port number, 0 to 65535", description="0 takes a free one."
    )
    basic_auth: Annotated[str, _pattern(re.compile(r"[^:]+:.+"))] | None = Field(
        None, title="user:password", description="Asked of every visitor when set.", repr=False
    )


SECTIONS: dict[str, type[Section]] = {
    "broker": Broker,
    "results": Results,
    "database": Database,
    "dags": Dags,
    "logs": Logs,
    "health": Health,
    "scheduler": Scheduler,
    "worker": Worker,
    "kubernetes": Kubernetes,
    "policy": Policy,
    "flower": Flower,
}
"""Section name in the file -> its model. `queues` is the router's, not a model."""

PLAIN_TABLES = frozenset({"kubernetes.max_pods_by_namespace"})
"""Tables of which nothing is secret, whatever the names in them."""

SECRETS = frozenset({"broker.url", "results.url", "database.url", "flower.basic_auth"})
"""Keys whose values are never shown whole."""


def model_of(section: str) -> type[Section]:
    """The model of a section; "" stands for the keys outside of sections."""
    return SECTIONS[section] if section else Top


def kind_of(section: str, key: str) -> type[Any]:
    """The plain type of a key's values: str, int, float, bool, list or Path (None, where allowed, means "not set")."""
    annotation: Any = model_of(section).model_fields[key].annotation
    while not isinstance(annotation, type):
        if get_origin(annotation) in (list, dict):
            return get_origin(annotation)  # type: ignore[no-any-return]
        annotation = annotation.__args__[0]
    return annotation
