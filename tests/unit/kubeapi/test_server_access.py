"""Kubeconfigs and service accounts: each field is honoured, or refused by name, or said to have no effect."""

import asyncio
import base64
import contextlib
import json
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import certifi
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher import errors
from dispatcher.kubeapi import client, kubeconfig, server_access
from tests import tiny_server

SERVER = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)


def written(
    folder: Path,
    *,
    cluster: Mapping[str, Any] | None = None,
    user: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
) -> Path:
    """A kubeconfig with one context."""
    file = folder / "kubeconfig"
    document = {
        "clusters": [{"name": "c", "cluster": {"server": SERVER, **(cluster or {})}}],
        "users": [{"name": "u", "user": dict(user or {})}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", **(context or {})}}],
        "current-context": "x",
    }
    file.write_text(yaml.safe_dump(document))
    return file


def access(folder: Path, **parts: Any) -> server_access.Access:
    return server_access.connect(kubeconfig=written(folder, **parts))


# --- credentials ---


@pytest.mark.parametrize("text", ["abc\n", "abc\r\n", " abc \n\n", "\ufeffabc\n", "abc"])
def test_a_token_is_sent_without_what_editors_add(tmp_path: Path, text: str) -> None:
    """A file that ends with a line feed is a good file: kubectl takes it."""
    (tmp_path / "token").write_text(text)
    assert access(tmp_path, user={"tokenFile": "token"}).token() == "Bearer abc"
    assert access(tmp_path, user={"token": text.strip("\ufeff")}).token() == "Bearer abc"


@pytest.mark.parametrize("text", ["", " \n", "ab c", "ab\nc", "äbc", "ab\0c"])
def test_a_token_that_no_header_takes_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "token").write_text(text)
    with pytest.raises(errors.DispatcherError, match="token"):
        access(tmp_path, user={"tokenFile": "token"})


def test_a_token_file_is_read_again(tmp_path: Path) -> None:
    """After a refusal at once; while it cannot be read, or is half written, the last token is used on."""
    file = tmp_path / "token"
    file.write_text("old\n")
    known = access(tmp_path, user={"tokenFile": "token"})
    file.write_text("new\r\n")
    assert known.renew is not None
    known.renew(is_refused=False)
    assert known.token() == "Bearer old"
    known.renew(is_refused=True)
    assert known.token() == "Bearer new"
    file.write_text("")
    known.renew(is_refused=True)
    file.unlink()
    known.renew(is_refused=True)
    assert known.token() == "Bearer new"


def test_user_and_password(tmp_path: Path) -> None:
    known = access(tmp_path, user={"username": "me", "password": "pä:ss"})
    assert known.token() == "Basic " + base64.b64encode("me:pä:ss".encode()).decode()


def program(folder: Path, body: str) -> dict[str, Any]:
    """A program that gives credentials: Python that prints."""
    file = folder / "plugin"
    file.write_text(f"#!{sys.executable}\nimport json, os, sys\n{body}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return {"apiVersion": "client.authentication.k8s.io/v1", "command": "./plugin", "interactiveMode": "Never"}


GIVES = """
kind = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
print(json.dumps({**kind, "status": {"token": os.environ["WHO"] + "-" + info["spec"]["cluster"]["server"][:4]}}))
"""


def test_a_program_gives_the_token(tmp_path: Path) -> None:
    """With its arguments, its environment and what it is told of the cluster; its path is relative to the file."""
    wanted = program(tmp_path, GIVES) | {"env": [{"name": "WHO", "value": "me"}], "provideClusterInfo": True}
    assert access(tmp_path, user={"exec": wanted}).token() == "Bearer me-http"


@pytest.mark.parametrize("given", ["by path", "as data"])
def test_a_program_is_given_the_authority_of_the_cluster(tmp_path: Path, given: str) -> None:
    """What the file holds, as client-go gives it: a path in our kubeconfig means nothing to it."""
    authority = "-----BEGIN CERTIFICATE-----"
    (tmp_path / "ca.pem").write_text(authority)
    data = base64.b64encode(authority.encode()).decode()
    cluster = {"certificate-authority": "ca.pem"} if given == "by path" else {"certificate-authority-data": data}
    body = """
cluster = json.loads(os.environ["KUBERNETES_EXEC_INFO"])["spec"]["cluster"]
kind = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
known = [key for key in cluster if key.startswith("certificate")]
print(json.dumps({**kind, "status": {"token": "-".join([*known, cluster["certificate-authority-data"]])}}))
"""
    wanted = program(tmp_path, body) | {"provideClusterInfo": True}
    opened = access(tmp_path, user={"exec": wanted}, cluster=cluster)
    assert opened.token() == f"Bearer certificate-authority-data-{data}"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("sys.exit('log in again')", "ended with 1: log in again"),
        ("print('hello')", "gave no ExecCredential"),
        ("print('null')", "gave no ExecCredential"),
        (
            'print(\'{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {}}\')',
            "neither a token nor a certificate",
        ),
        ('print(\'{"apiVersion": "v9", "kind": "ExecCredential", "status": {"token": "t"}}\')', "of v9"),
    ],
)
def test_a_program_that_gives_none_is_quoted(tmp_path: Path, body: str, words: str) -> None:
    """In silence nobody would know why the server refuses us."""
    with pytest.raises(errors.DispatcherError, match=words):
        access(tmp_path, user={"exec": program(tmp_path, body)})


def test_a_program_that_is_not_there_is_named_with_its_hint(tmp_path: Path) -> None:
    wanted = {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-program", "installHint": "brew it"}
    with pytest.raises(errors.DispatcherError, match=r"no-such-program.*brew it"):
        access(tmp_path, user={"exec": wanted})


def test_a_service_account(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc\n")
    (tmp_path / "ca.crt").write_bytes(Path(certifi.where()).read_bytes())
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    found = server_access._of_service_account(tmp_path, environ, verify=True)
    assert (found.host, found.token()) == ("https://[fd00::1]:443", "Bearer abc")


# --- all fields ---


def sent(folder: Path, **parts: Any) -> Any:
    """The request that a server of this kubeconfig gets."""

    async def ask() -> Any:
        async with tiny_server.TinyServer() as server:
            server.answer = tiny_server.json_answer({"gitVersion": "v1"})
            cluster = {"server": server.url, **parts.pop("cluster", {})}
            async with client.KubeClient(access(folder, cluster=cluster, **parts)) as api:
                await api.read_version()
            return server.requests[0]

    return asyncio.run(ask())


def test_whom_we_act_for_is_sent(tmp_path: Path) -> None:
    user = {"as": "me", "as-uid": "7", "as-groups": ["g", "h"], "as-user-extra": {"a/b": ["1", "2"]}, "token": "t"}
    headers = sent(tmp_path, user=user).headers
    assert headers["authorization"] == "Bearer t"
    assert {name: value for name, value in headers.items() if name.startswith("impersonate")} == {
        "impersonate-user": "me",
        "impersonate-uid": "7",
        "impersonate-group": "g,h",
        "impersonate-extra-a%2fb": "1,2",
    }


def test_compression_can_be_switched_off(tmp_path: Path) -> None:
    assert "gzip" in sent(tmp_path).headers["accept-encoding"]
    assert sent(tmp_path, cluster={"disable-compression": True}).headers["accept-encoding"] == "identity"


def test_a_proxy_that_the_kubeconfig_orders_is_used(tmp_path: Path) -> None:
    """The server's own name is not even looked up."""

    async def ask() -> str:
        async with tiny_server.TinyServer() as proxy:
            proxy.answer = tiny_server.json_answer({"gitVersion": "v1"})
            cluster = {"server": "http://api.invalid:6443", "proxy-url": proxy.url}
            async with client.KubeClient(access(tmp_path, cluster=cluster)) as api:
                await api.read_version()
            return proxy.requests[0].target

    assert asyncio.run(ask()) == "http://api.invalid:6443/version"


def test_a_proxy_of_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    assert access(tmp_path, cluster={"server": "http://api.example"}).proxy == "http://proxy.example:3128"
    monkeypatch.setenv("NO_PROXY", ".example")
    assert access(tmp_path, cluster={"server": "http://api.example"}).proxy is None


REFUSED: Mapping[str, Mapping[str, Any]] = {
    "auth-provider": {"user": {"auth-provider": {"name": "oidc"}}},
    "interactiveMode": {
        "user": {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "x", "interactiveMode": "Always"}}
    },
    "exec.apiVersion": {"user": {"exec": {"apiVersion": "v1alpha1", "command": "x"}}},
    "certificate-authority": {"cluster": {"server": "https://a", "certificate-authority": "/nowhere"}},
    "certificate-authority-data": {"cluster": {"server": "https://a", "certificate-authority-data": "!"}},
    "client-certificate": {"cluster": {"server": "https://a"}, "user": {"client-certificate": "/nowhere"}},
    "client-key-data": {
        "cluster": {"server": "https://a"},
        "user": {"client-certificate-data": "eA==", "client-key-data": "!"},
    },
    "tokenFile": {"user": {"tokenFile": 7}},
    "username": {"user": {"username": "me"}},
    "as-groups": {"user": {"as-groups": ["g"]}},
    "insecure-skip-tls-verify": {
        "cluster": {"insecure-skip-tls-verify": True, "certificate-authority-data": "eA=="},
    },
    "proxy-url": {"cluster": {"proxy-url": "socks5://proxy:1"}},
    "server": {"cluster": {"server": "api.example"}},
    "no cluster named 'z'": {"context": {"cluster": "z"}},
    "no user named 'z'": {"context": {"user": "z"}},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(errors.DispatcherError, match=name):
        access(tmp_path, **REFUSED[name])


NO_EFFECT: Mapping[str, Mapping[str, Any]] = {
    "'certificate-autority'": {"cluster": {"certificate-autority": "x"}},
    "'tokenfile'": {"user": {"tokenfile": "x"}},
    "the namespace 'shop'": {"context": {"namespace": "shop"}},
    "exec has no effect": {
        "user": {"token": "t", "exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "x"}}
    },
}


@pytest.mark.parametrize("words", NO_EFFECT)
def test_what_has_no_effect_is_said(tmp_path: Path, words: str) -> None:
    """Misspelt fields, and fields that another one stands before."""
    (note,) = access(tmp_path, **NO_EFFECT[words]).notes
    assert words in note


def test_every_field_of_the_schema_is_one_that_we_know() -> None:
    """https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/ as of Kubernetes 1.36."""
    names = {
        shape: {field.encode_name for field in kubeconfig.msgspec.structs.fields(shape)}
        for shape in (kubeconfig.Cluster, kubeconfig.User, kubeconfig.Context, kubeconfig.Exec)
    }
    assert names == {
        kubeconfig.Cluster: {
            *("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority"),
            *("certificate-authority-data", "proxy-url", "disable-compression", "extensions"),
        },
        kubeconfig.User: {
            *("client-certificate", "client-certificate-data", "client-key", "client-key-data", "token", "tokenFile"),
            *("as", "as-uid", "as-groups", "as-user-extra", "username", "password", "auth-provider", "exec"),
            "extensions",
        },
        kubeconfig.Context: {"cluster", "user", "namespace", "extensions"},
        kubeconfig.Exec: {
            *("command", "args", "env", "apiVersion", "installHint", "provideClusterInfo", "interactiveMode"),
        },
    }


# --- files as people have them ---


@pytest.mark.parametrize(
    "text",
    ["", "[]", "text", "a: [", "\0", "contexts: {}", "clusters: [1]", "current-context: 7", "users: [{name: 1}]"],
)
def test_a_file_that_is_no_kubeconfig_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(text)
    with pytest.raises(errors.DispatcherError, match="no access to Kubernetes"):
        server_access.connect(kubeconfig=file)


def test_of_several_files_the_first_one_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for kubectl; one that is not there is passed over."""
    (tmp_path / "b").mkdir()
    first = written(tmp_path, user={"token": "first"})
    second = written(tmp_path / "b", user={"token": "second"})
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'missing'}:{first}:{second}")
    assert server_access.connect(in_cluster=False).token() == "Bearer first"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    ["server", "certificate-authority-data", "proxy-url", "tls-server-name", "disable-compression"]
)
USER_FIELDS = st.sampled_from(
    ["token", "as", "as-groups", "as-user-extra", "username", "password", "client-key-data", "exec", "auth-provider"]
)


@settings(max_examples=150)
@given(cluster=st.dictionaries(FIELDS, VALUES, max_size=3), user=st.dictionaries(USER_FIELDS, VALUES, max_size=3))
def test_no_mistake_of_a_person_is_a_defect_of_ours(
    tmp_path_factory: pytest.TempPathFactory, cluster: dict[str, Any], user: dict[str, Any]
) -> None:
    """Whatever stands in a field: it is taken, or refused with words."""
    folder = tmp_path_factory.getbasetemp()
    document = {
        "clusters": [{"name": "c", "cluster": {"server": SERVER, **cluster}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file = folder / "any-kubeconfig"
    file.write_text(json.dumps(document))
    with contextlib.suppress(errors.DispatcherError):
        assert server_access.connect(kubeconfig=file).host
