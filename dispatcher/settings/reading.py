"""Reading: what stands in layers becomes tables of settings and profiles of queues; every mistake is noted with its
place.

Celery applications (`dispatcher.worker.app_config`) and installations (`routing.config.settings`, `routing.router`)
read by this code alone, so that a value means the same to both.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dispatcher import constraints, policy
from dispatcher.attempts import wait_rules
from dispatcher.manifests import quantities, redaction
from dispatcher.options import Options, QueueProfile
from dispatcher.settings import layers, sections, template_files

Check = Callable[[Any], str | None]
"""Says what is wrong with a value that fits its type, or None."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a queue's rule."""

    key: str
    value: object
    """As people may see it: without what may be a secret."""
    message: str


def section(read: layers.Layers, name: str, *, defaults: Mapping[str, object] | None = None) -> Any:
    """A section as its table; `defaults` stand for keys that nobody set.

    What is wrong is noted in `read`, and the default stands in for it until the end of reading.
    """
    found: dict[str, Any] = dict(defaults or {})
    prefix = (name,) if name else ()
    for key, one in read.keys(name).items():
        written = read.values.get((*prefix, key))
        if written is None:
            continue
        try:
            found[key] = one.read(_placed(one, written, path=(*prefix, key)))
        except ValueError as error:
            spelled = layers.spell((*prefix, key))
            # And on: all mistakes of a file are told at once, not one for each start.
            read.add_problem(written.place, f"{spelled} = {layers.quote(written.raw, key=key)}: {error}")
    return read.tables[name](**found)


def profile(
    given: Mapping[str, object],
    *,
    defaults: QueueProfile,
    beside: Sequence[str] = (),
) -> tuple[QueueProfile, list[Problem]]:
    """What a queue's rule says of its pods, and all that is wrong with it.

    `defaults` stand for what it does not say; keys `beside` those of a profile are the caller's.
    """
    known = constraints.keys_of(QueueProfile)
    all_keys = (*beside, *known)
    found: dict[str, Any] = {}
    problems: list[Problem] = []
    for key, raw in given.items():
        # By the key's name: it goes into errors and into `podyard config show`.
        shown = redaction.hide(raw, name=key)
        one = known.get(key)
        if one is None:
            near = constraints.nearest(key, all_keys) or f"; known are {', '.join(all_keys)}"
            problems.append(Problem(key, shown, f"unknown key{near}"))
            continue
        try:
            found[key] = one.read(raw)
        except ValueError as error:
            problems.append(Problem(key, shown, str(error)))
            continue
        # Only of a value whose type is right: the checks need not look at that again.
        wrong = _CHECKS[one.check](found[key]) if one.check and found[key] is not None else None
        if wrong:
            problems.append(Problem(key, shown, wrong))
    made = replace(defaults, **found)
    # Without a cap a leak would be fed until no node takes the pod (ADR 7).
    if made.memory_growth and not made.memory_growth_max:
        problems.append(Problem("memory_growth", made.memory_growth, 'needs memory_growth_max, such as "8Gi"'))
    return made, problems


def rules(read: layers.Layers) -> dict[str, Any]:
    """The rules of queues as they are written, for `profile`; templates that are files are found from their place."""
    written: dict[str, Any] = {queue: {} for queue in read.rules}
    # A rule that is no table stands under its name alone, and is kept as it is: who reads it names the mistake.
    for path, value in read.values.items():
        if path[0] == "queues" and len(path) == 3 and isinstance(written[path[1]], dict):
            written[path[1]][path[2]] = _template_path(value) if path[2] == "template" else value.raw
        elif path[0] == "queues" and len(path) == 2:
            written[path[1]] = value.raw
    return written


def options(
    found: Mapping[str, Any],
    *,
    deployment: str,
    app_path: str,
    profile_for: Callable[[str], QueueProfile],
    profiles: Mapping[str, QueueProfile],
    include: tuple[str, ...] = (),
    written: Collection[sections.KeyPath] | None = None,
) -> Options:
    """The options of a dispatcher, from sections by name.

    `written` are the keys that an application sets: without them it has no database and no folders. None: the defaults
    of an installation hold.
    """
    kubernetes: sections.Kubernetes = found["kubernetes"]
    rights: policy.Policy = found["policy"]
    # From the start, also those where no pod is: pods of an earlier life are looked for there.
    namespaces = {kubernetes.namespace, *(one.namespace for one in profiles.values())}
    return Options(
        profile_for=profile_for,
        app_path=app_path,
        include=include,
        deployment=deployment,
        namespaces=tuple(sorted(namespaces)),
        kubeconfig=kubernetes.kubeconfig,
        context=kubernetes.context,
        in_cluster=kubernetes.in_cluster,
        verify_ssl=kubernetes.verify_ssl,
        max_pods=kubernetes.max_pods,
        max_pods_by_namespace=kubernetes.max_pods_by_namespace,
        create_rate=kubernetes.create_rate,
        create_burst=kubernetes.create_burst,
        limits_namespace=kubernetes.namespace,
        image=kubernetes.image,
        # An application that says nothing has no database: the default
        # of an installation would make files in its home folder.
        database_url=found["database"].url if written is None or ("database", "url") in written else None,
        log_folder=found["logs"].folder if written is None or ("logs", "folder") in written else None,
        health_folder=found["health"].folder if written is None or ("health", "folder") in written else None,
        log_max_bytes=found["logs"].max_bytes,
        result_max_bytes=found["results"].max_bytes,
        policy=rights,
        pod_mutation_hook=kubernetes.pod_mutation_hook,
        xcom_sidecar_image=kubernetes.xcom_sidecar_image,
    )


def _placed(key: constraints.Key, value: layers.Value, *, path: sections.KeyPath) -> object:
    """The value with its path counted from where it was written; so are files of SQLite."""
    if key.kind is Path and isinstance(value.raw, str | Path) and str(value.raw):
        return value.base / layers.expanded(str(value.raw))
    if path == ("database", "url") and isinstance(value.raw, str):
        return _database_url(value.raw, value.base)
    return value.raw


def _database_url(url: str, base: Path) -> str:
    """A driver that we ship for PostgreSQL's plain URLs; an absolute file for SQLite."""
    scheme, separator, rest = url.partition("://")
    # SQLAlchemy would take psycopg2 for these, which we do not ship; `postgres://` it does not know at all.
    if scheme in ("postgres", "postgresql"):
        return f"postgresql+psycopg{separator}{rest}"
    # Four slashes are an absolute path for SQLAlchemy, three
    # one from the current folder, which no two processes share.
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1 and not rest.startswith("/:memory:"):
        return f"sqlite:///{base / rest[1:]}"
    return url


def _template_path(value: layers.Value) -> object:
    """A template that is a file is found from where it was written, not from where a process happens to run."""
    if isinstance(value.raw, str) and value.raw and template_files.is_path(value.raw):
        return str(value.base / layers.expanded(value.raw))
    return value.raw


def _memory_problem(text: str) -> str | None:
    try:
        quantities.bytes_of(text)
    except ValueError as error:
        return str(error)
    return None


_CHECKS: Mapping[str, Check] = {
    "memory": _memory_problem,
    "template": template_files.problem,
    "waits": wait_rules.problem,
}
"""The checks that `constraints` names: what no annotation can spell."""
