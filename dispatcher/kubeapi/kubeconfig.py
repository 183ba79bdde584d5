"""Kubeconfig files -> the cluster and the user of one context. Nothing of them is dropped in silence.

Each field of kubeconfig v1 is honoured, or refused by name, or stands in `Login.notes`; a table in the tests names what
becomes of each. https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/ Called by `server_access`; opens no
connection and reads no file but the kubeconfigs.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from dispatcher import errors

DEFAULT = "~/.kube/config"
T = TypeVar("T")


class Cluster(msgspec.Struct, rename="kebab", frozen=True):
    """Where the server is. https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/#Cluster"""

    server: str = ""
    tls_server_name: str = ""
    insecure_skip_tls_verify: bool = False
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    proxy_url: str = ""
    disable_compression: bool = False
    extensions: Any = None


class Variable(msgspec.Struct, frozen=True):
    """An environment variable of a program that gives credentials."""

    name: str
    value: str


class Exec(msgspec.Struct, rename="camel", frozen=True):
    """The program that gives credentials."""

    command: str
    api_version: str
    args: list[str] | None = None
    env: list[Variable] | None = None
    install_hint: str = ""
    provide_cluster_info: bool = False
    interactive_mode: str = "IfAvailable"


_USER_NAMES = {"token_file": "tokenFile"}


def _user_name(field: str) -> str:
    """All fields of a user have dashes, save one; `as` is a word of Python."""
    return _USER_NAMES.get(field) or field.rstrip("_").replace("_", "-")


class User(msgspec.Struct, rename=_user_name, frozen=True):
    """Who we are. https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/#AuthInfo"""

    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    token: str = ""
    token_file: str = ""
    as_: str = ""
    as_uid: str = ""
    as_groups: list[str] | None = None
    as_user_extra: dict[str, list[str]] | None = None
    username: str = ""
    password: str = ""
    auth_provider: Any = None
    exec: Exec | None = None
    extensions: Any = None


class Context(msgspec.Struct, rename="kebab", frozen=True):
    """Which user at which cluster."""

    cluster: str = ""
    user: str = ""
    namespace: str = ""
    extensions: Any = None


@dataclass(frozen=True, kw_only=True)
class Login:
    """What a context says. Paths of files are relative to `folder_of_cluster` and `folder_of_user`."""

    context: str
    cluster: Cluster
    user: User
    folder_of_cluster: Path
    folder_of_user: Path
    cluster_as_written: Mapping[str, Any]
    """For a program that is given the cluster's information."""
    notes: Sequence[str] = ()
    """What of the files has no effect, a line each."""


@dataclass(frozen=True)
class _Entry:
    """A named entry of a file."""

    content: Any
    file: Path


@dataclass(frozen=True)
class _Merged:
    """Several files as one: of each name the first one counts, as for kubectl."""

    clusters: Mapping[str, _Entry]
    users: Mapping[str, _Entry]
    contexts: Mapping[str, _Entry]
    current: str


def paths(kubeconfig: Path | None, environ: Mapping[str, str]) -> list[Path]:
    """The files: the given ones, else those of KUBECONFIG, else the one in the home folder."""
    # The setting may list several files, as KUBECONFIG does.
    given = str(kubeconfig) if kubeconfig else environ.get("KUBECONFIG") or DEFAULT
    return [Path(part).expanduser() for part in given.split(os.pathsep) if part]


def read(files: Sequence[Path], *, context: str | None) -> Login:
    """The cluster and the user of a context, None: of the current one. Raises DispatcherError that names the place."""
    # As kubectl: of the files that KUBECONFIG lists some may be missing.
    there = [file for file in files if file.exists()]
    if not there:
        raise errors.DispatcherError(f"there is no file {' or '.join(map(str, files))}")
    merged = _merge([(file, _document(file)) for file in there])
    name = context or merged.current
    if not name:
        raise errors.DispatcherError(f"{there[0]}: no current-context; name one in the setting kubernetes.context")
    chosen = _convert(_entry(merged.contexts, name, "context"), Context, f"contexts[{name}].context")
    cluster_entry = _entry(merged.clusters, chosen.cluster, "cluster")
    # A context without a user is an anonymous one for kubectl, too.
    user_entry = _entry(merged.users, chosen.user, "user") if chosen.user else _Entry({}, cluster_entry.file)
    where_cluster, where_user = f"clusters[{chosen.cluster}].cluster", f"users[{chosen.user}].user"
    login = Login(
        context=name,
        cluster=_convert(cluster_entry, Cluster, where_cluster),
        user=_convert(user_entry, User, where_user),
        # `absolute`, not `resolve`: kubectl takes paths from where the name stands, and does not follow a link first.
        folder_of_cluster=cluster_entry.file.absolute().parent,
        folder_of_user=user_entry.file.absolute().parent,
        cluster_as_written=cluster_entry.content,
        notes=[
            *_unknown(merged.contexts[name], Context, f"contexts[{name}].context"),
            *_unknown(cluster_entry, Cluster, where_cluster),
            *_unknown(user_entry, User, where_user),
            *_namespace(chosen, name),
        ],
    )
    _refuse(login.cluster, f"{cluster_entry.file}: {where_cluster}")
    _refuse_user(login.user, f"{user_entry.file}: {where_user}")
    overruled = [f"{user_entry.file}: {where_user}.{line}" for line in _overruled(login.user)]
    return replace(login, notes=[*login.notes, *overruled])


def _refuse(cluster: Cluster, where: str) -> None:
    """What kubectl refuses, too."""
    if not cluster.server:
        raise errors.DispatcherError(f"{where} has no server")
    if not cluster.server.startswith(("http://", "https://")):
        raise errors.DispatcherError(f"{where}.server must begin with https:// (or http://)")
    if cluster.insecure_skip_tls_verify and (cluster.certificate_authority or cluster.certificate_authority_data):
        raise errors.DispatcherError(
            f"{where} has insecure-skip-tls-verify and a certificate-authority; remove one of them"
        )


def _refuse_user(user: User, where: str) -> None:
    if user.auth_provider is not None:
        raise errors.DispatcherError(
            f"{where}.auth-provider is not supported (kubectl has dropped most of them); use a plugin by exec, such as"
            " kubelogin or gke-gcloud-auth-plugin"
        )
    has_certificate = bool(user.client_certificate or user.client_certificate_data)
    if has_certificate != bool(user.client_key or user.client_key_data):
        raise errors.DispatcherError(f"{where} needs both client-certificate and client-key, or their -data")
    if bool(user.username) != bool(user.password):
        raise errors.DispatcherError(f"{where} needs both username and password")
    if user.username and (user.token or user.token_file):
        raise errors.DispatcherError(f"{where} has a token and a username: only one can be sent; remove the other")
    if (user.as_uid or user.as_groups or user.as_user_extra) and not user.as_:
        raise errors.DispatcherError(f"{where} has as-uid, as-groups or as-user-extra without as")
    if user.exec is not None and user.exec.interactive_mode not in ("Never", "IfAvailable"):
        raise errors.DispatcherError(
            f"{where}.exec.interactiveMode is {user.exec.interactive_mode}: there is nobody whom the program could ask"
        )


def _document(file: Path) -> Mapping[str, Any]:
    try:
        document = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise errors.DispatcherError(f"{file} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark is not None else ""
        raise errors.DispatcherError(f"{file} is not valid YAML{line}") from error
    if not isinstance(document, dict):
        raise errors.DispatcherError(f"{file} is not a kubeconfig: it is not a mapping")
    return document


def _merge(documents: Sequence[tuple[Path, Mapping[str, Any]]]) -> _Merged:
    found: dict[str, dict[str, _Entry]] = {"clusters": {}, "users": {}, "contexts": {}}
    current = ""
    for file, document in documents:
        for kind, entries in found.items():
            for name, content in _named(document.get(kind), kind, file):
                entries.setdefault(name, _Entry(content, file))
        given = document.get("current-context") or ""
        if not isinstance(given, str):
            raise errors.DispatcherError(f"{file}: current-context must be a string")
        current = current or given
    return _Merged(found["clusters"], found["users"], found["contexts"], current)


def _named(entries: Any, kind: str, file: Path) -> Iterator[tuple[str, Any]]:
    if entries is not None and not isinstance(entries, list):
        raise errors.DispatcherError(f"{file}: {kind} must be a list")
    seen: set[str] = set()
    for entry in entries or []:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise errors.DispatcherError(f"{file}: the name of an entry of {kind} must be a string")
        # client-go refuses it, too; over several files the first one counts.
        if name in seen:
            raise errors.DispatcherError(f"{file}: {kind} has two entries named {name!r}")
        seen.add(name)
        content = entry.get(kind.removesuffix("s"))
        # `cluster:` without a value is read as empty and refused for its missing server, in those words.
        yield name, {} if content is None else content


def _entry(entries: Mapping[str, _Entry], name: str, kind: str) -> _Entry:
    if name not in entries:
        there = ", ".join(sorted(entries)) or "none"
        raise errors.DispatcherError(f"the kubeconfig has no {kind} named {name!r}; it has: {there}")
    return entries[name]


def _convert(entry: _Entry, shape: type[T], where: str) -> T:
    try:
        return msgspec.convert(_without_nulls(entry.content), shape)
    except msgspec.ValidationError as error:
        raise errors.DispatcherError(f"{entry.file}: {where}: {error}") from error


def _without_nulls(content: Any) -> Any:
    """A field without a value is as one that is not there, as for kubectl."""
    if isinstance(content, dict):
        return {key: _without_nulls(value) for key, value in content.items() if value is not None}
    return content


def _unknown(entry: _Entry, shape: type[msgspec.Struct], where: str) -> Iterator[str]:
    """Fields that no kubeconfig has: misspelt ones, mostly."""
    known = {field.encode_name for field in msgspec.structs.fields(shape)}
    for name in entry.content:
        if name not in known:
            yield f"{entry.file}: {where} has no field {name!r}; it has no effect"
    program = entry.content.get("exec")
    if isinstance(program, dict):
        yield from _unknown(_Entry(program, entry.file), Exec, f"{where}.exec")


def _overruled(user: User) -> Iterator[str]:
    """Fields that another one of the same user stands before, as for kubectl."""
    rules = (
        ("token", user.token, "tokenFile", user.token_file),
        ("exec", user.exec, "token", user.token or user.token_file),
        ("exec", user.exec, "username", user.username),
        ("client-certificate", user.client_certificate, "client-certificate-data", user.client_certificate_data),
        ("client-key", user.client_key, "client-key-data", user.client_key_data),
    )
    for field, value, stronger, its_value in rules:
        if value and its_value:
            yield f"{field} has no effect: there is {stronger}"


def _namespace(context: Context, name: str) -> Iterator[str]:
    if context.namespace:
        yield f"the namespace {context.namespace!r} of the context {name!r} has no effect: kubernetes.namespace says it"
