"""Access: where the API server is, how to get there, and who we are; of a kubeconfig or of the pod that we run in.

`connect` reads it once; tokens in files and of programs are renewed while they are used. Whatever a person got wrong is
a DispatcherError that names the file and the field. Called by the dispatcher and by the command line, off the loop.
"""

import base64
import binascii
import logging
import os
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit

from dispatcher import errors
from dispatcher.kubeapi import exec_plugin, kubeconfig, proxy

logger = logging.getLogger(__name__)

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_AGE_S = 30.0
"""A file with a token is read again after so long: Kubernetes rotates them ten minutes before they end."""


class Renew(Protocol):
    """Renews credentials where that is due, or they were `is_refused`; may block. Raises DispatcherError."""

    def __call__(self, *, is_refused: bool) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Access:
    """Where the API server is and how to be let in. `token` gives the header's value, anew each time: tokens rotate."""

    host: str
    token: Callable[[], str | None]
    tls: ssl.SSLContext | bool
    tls_server_name: str | None = None
    proxy: str | None = None
    headers: Sequence[tuple[str, str]] = ()
    """Of every call: whom we act for, what may be compressed."""
    renew: Renew | None = None
    notes: Sequence[str] = ()
    """What of the kubeconfig has no effect, a line each."""


class AccessOptions(Protocol):
    """Which server is meant: the arguments of `connect`, as settings and `Options` carry them."""

    @property
    def kubeconfig(self) -> Path | None: ...
    @property
    def context(self) -> str | None: ...
    @property
    def in_cluster(self) -> bool | None: ...
    @property
    def verify_ssl(self) -> bool: ...


def connect_as(options: AccessOptions) -> Access:
    """`connect` with the arguments that somebody carries."""
    return connect(
        kubeconfig=options.kubeconfig,
        context=options.context,
        in_cluster=options.in_cluster,
        verify_ssl=options.verify_ssl,
    )


def connect(
    *,
    kubeconfig: Path | None = None,
    context: str | None = None,
    in_cluster: bool | None = None,
    verify_ssl: bool = True,
) -> Access:
    """Reads the credentials of a kubeconfig, or of the pod that this process runs in.

    `in_cluster` None means: in-cluster if a service account is mounted and no kubeconfig is given. `verify_ssl` False
    takes any certificate of the server, as does a kubeconfig that says so.
    Raises DispatcherError that names the file and what is wrong with it.
    """
    # The token and not KUBERNETES_SERVICE_HOST: pods with
    # `automountServiceAccountToken: false` have the latter alone.
    is_inside = in_cluster is None and kubeconfig is None and (SERVICE_ACCOUNT / "token").exists()
    try:
        if in_cluster or is_inside:
            return _of_service_account(SERVICE_ACCOUNT, os.environ, verify=verify_ssl)
        return _of_kubeconfig(kubeconfig, context, os.environ, verify=verify_ssl)
    except errors.DispatcherError as error:
        remedy = "name a kubeconfig in the setting kubernetes.kubeconfig, or correct this one"
        raise errors.DispatcherError(f"no access to Kubernetes: {error}; {remedy}") from error


class TokenFile:
    """A token in a file that somebody else rotates."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._token = _read_token(file)
        self._read_mono_s = time.monotonic()

    def __call__(self) -> str:
        """The value of the header; the last good one while the file cannot be read."""
        return f"Bearer {self._token}"

    def renew(self, *, is_refused: bool) -> None:
        """Reads the file again if that is due."""
        now_mono_s = time.monotonic()
        if not is_refused and now_mono_s - self._read_mono_s < TOKEN_AGE_S:
            return
        # Before the file is read: one that is broken is read again after the same time, not at every call.
        self._read_mono_s = now_mono_s
        try:
            self._token = _read_token(self._file)
        except errors.DispatcherError as error:
            logger.warning("the token could not be read again, the last one is used: %s", error)


class Program:
    """Credentials of a program."""

    def __init__(self, login: kubeconfig.Login, tls: ssl.SSLContext | bool) -> None:
        assert login.user.exec is not None  # asked by who makes it
        self._login = login
        self._program = login.user.exec
        self._tls = tls
        # At once: a program that is missing or wants a person is an error of the connection, not of the first pod.
        self._known = self._run()

    def __call__(self) -> str | None:
        """The value of the header."""
        token = self._known.token
        return f"Bearer {_clean_token(token, 'exec')}" if token else None

    def renew(self, *, is_refused: bool) -> None:
        """Runs the program again if that is due."""
        if is_refused or self._known.is_expired(datetime.now(UTC)):
            self._known = self._run()

    def _run(self) -> exec_plugin.Credentials:
        login = self._login
        cluster = dict(login.cluster_as_written)
        authority = _authority(login)
        if authority is not None:  # as client-go: a program is given what the file holds, since its path is ours
            cluster["certificate-authority-data"] = base64.b64encode(authority).decode()
        given = exec_plugin.run(self._program, folder=login.folder_of_user, cluster=cluster)
        if given.certificate and given.key and isinstance(self._tls, ssl.SSLContext):
            # Into the context that is in use: connections that are
            # made from now on have the new one, open ones live on.
            _load_certificate(self._tls, given.certificate.encode(), given.key.encode(), "exec")
        return given


def _of_service_account(folder: Path, environ: Mapping[str, str], *, verify: bool) -> Access:
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise errors.DispatcherError(
            "KUBERNETES_SERVICE_HOST and _PORT are not set: this process does not run in a pod"
        )
    # The service's address may be IPv6, which kubelet writes without brackets.
    server = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    token = TokenFile(folder / "token")
    return Access(
        host=server,
        token=token,
        tls=_tls(server, verify=verify, authority=_file(folder / "ca.crt")),
        proxy=_proxy(server, None, environ),
        renew=token.renew,
    )


def _of_kubeconfig(file: Path | None, context: str | None, environ: Mapping[str, str], *, verify: bool) -> Access:
    login = kubeconfig.read(kubeconfig.paths(file, environ), context=context)
    cluster, user = login.cluster, login.user
    server = _server(cluster.server)
    tls = _tls(server, verify=verify and not cluster.insecure_skip_tls_verify, authority=_authority(login))
    _load_user_certificate(tls, login)
    token, renew = _token(login, tls)
    return Access(
        host=server,
        token=token,
        tls=tls,
        tls_server_name=cluster.tls_server_name or None,
        proxy=_proxy(server, cluster.proxy_url or None, environ),
        # aiohttp asks for gzip by itself; a server near by is quicker without.
        headers=[*_impersonation(user), *([("Accept-Encoding", "identity")] if cluster.disable_compression else [])],
        renew=renew,
        notes=login.notes,
    )


def _server(text: str) -> str:
    """The address without a slash at its end; it may have a path, behind a gateway."""
    server = text.strip().rstrip("/")
    try:
        address = urlsplit(server)
        is_usable = bool(address.hostname) and (address.port is None or address.port > 0)
    except ValueError:
        is_usable = False
    if not is_usable or address.query or address.fragment or any(sign.isspace() for sign in server):
        raise errors.DispatcherError(f"the server {text!r} is not an address such as https://10.0.0.1:6443")
    return server


def _proxy(server: str, configured: str | None, environ: Mapping[str, str]) -> str | None:
    try:
        return proxy.of(server, configured=configured, environ=environ)
    except ValueError as error:
        raise errors.DispatcherError(str(error)) from error


def _token(login: kubeconfig.Login, tls: ssl.SSLContext | bool) -> tuple[Callable[[], str | None], Renew | None]:
    """How to get the header's value, and how it is renewed: what kubectl would send."""
    user = login.user
    # client-go's order: what its file says comes before `token`,
    # and a program is asked only where nothing else is there.
    if user.token_file:
        file = TokenFile(login.folder_of_user / user.token_file)
        return file, file.renew
    if user.token:
        token = f"Bearer {_clean_token(user.token, 'the token')}"
        return (lambda: token), None
    if user.username:
        pair = base64.b64encode(f"{user.username}:{user.password}".encode()).decode()
        return (lambda: f"Basic {pair}"), None
    if user.exec is not None:
        program = Program(login, tls)
        return program, program.renew
    return (lambda: None), None


def _read_token(file: Path) -> str:
    # utf-8-sig: a file that Windows tools wrote may begin with a byte order mark.
    return _clean_token(_file(file).decode("utf-8-sig", errors="replace"), str(file))


def _clean_token(text: str, where: str) -> str:
    """A token as it stands in a header: files end with a line feed, and editors add blanks."""
    token = text.strip()
    if not token:
        raise errors.DispatcherError(f"{where} is empty")
    # Checked here, where the message can name the place without quoting the token.
    if not all("!" <= sign <= "~" for sign in token):
        raise errors.DispatcherError(f"{where} holds a character that no token has, such as a blank or a line feed")
    return token


def _impersonation(user: kubeconfig.User) -> list[tuple[str, str]]:
    """https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation"""
    headers = [("Impersonate-User", user.as_)] if user.as_ else []
    headers += [("Impersonate-Uid", user.as_uid)] if user.as_uid else []
    headers += [("Impersonate-Group", group) for group in user.as_groups or ()]
    for key, values in (user.as_user_extra or {}).items():
        headers += [(f"Impersonate-Extra-{quote(key, safe='')}", value) for value in values]
    if any(not value.isprintable() for _, value in headers):
        raise errors.DispatcherError(
            "a field of the impersonation (as, as-groups …) holds a character that no header may have"
        )
    return headers


def _authority(login: kubeconfig.Login) -> bytes | None:
    cluster = login.cluster
    if cluster.certificate_authority_data:
        return _decoded(cluster.certificate_authority_data, "certificate-authority-data")
    if cluster.certificate_authority:
        return _file(login.folder_of_cluster / cluster.certificate_authority, "certificate-authority: ")
    return None


def _tls(server: str, *, verify: bool, authority: bytes | None) -> ssl.SSLContext | bool:
    if server.startswith("http://"):
        # No TLS at all; aiohttp takes a boolean or a context.
        return True
    if not verify:
        return ssl._create_unverified_context()  # noqa: S323, SLF001 - the setting or the kubeconfig says so
    if authority is None:
        return ssl.create_default_context()
    if not authority.strip():
        raise errors.DispatcherError("certificate-authority is empty")
    try:
        return ssl.create_default_context(cadata=authority.decode("ascii", errors="ignore"))  # comments may be in any
    except (ssl.SSLError, ValueError) as error:
        raise errors.DispatcherError(f"certificate-authority holds no certificates in PEM form: {error}") from error


def _load_user_certificate(tls: ssl.SSLContext | bool, login: kubeconfig.Login) -> None:
    user, folder = login.user, login.folder_of_user
    if not isinstance(tls, ssl.SSLContext) or not (user.client_certificate or user.client_certificate_data):
        return
    data, key_data = user.client_certificate_data, user.client_key_data
    certificate = (
        _decoded(data, "client-certificate-data")
        if data
        else _file(folder / user.client_certificate, "client-certificate: ")
    )
    key = _decoded(key_data, "client-key-data") if key_data else _file(folder / user.client_key, "client-key: ")
    _load_certificate(tls, certificate, key, "client-certificate and client-key")


def _load_certificate(tls: ssl.SSLContext, certificate: bytes, key: bytes, where: str) -> None:
    """The ssl module takes files only: one that nobody else may read, for a moment."""
    with tempfile.NamedTemporaryFile(prefix="podyard-") as file:
        # The line feed: a certificate that ends without one would run into the key's first line, and neither be read.
        file.write(certificate.rstrip() + b"\n" + key)
        file.flush()
        try:
            # Without a function OpenSSL asks for the password on the terminal, and waits for an answer.
            tls.load_cert_chain(file.name, password=_no_password)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise errors.DispatcherError(f"{where} are no pair in PEM form: {error}") from error


def _no_password() -> str:
    raise ValueError("the key has a password, and there is nobody to ask for it")


def _decoded(text: str, field: str) -> bytes:
    try:
        # Wrapped lines are common; without `validate` any other character would be skipped in silence.
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise errors.DispatcherError(f"{field} is not base64") from error


def _file(path: Path, field: str = "") -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or error
        raise errors.DispatcherError(f"{field}{path} cannot be read: {words}") from error
