"""The client on a real server of a page: what it sends, what it takes for an answer, and what for none."""

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher import errors
from dispatcher.kubeapi import client, server_access
from dispatcher.kubeapi.client import KubeClient
from tests import tiny_server
from tests.tiny_server import TinyServer

Json = dict[str, Any]
META = {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7", "labels": {"k": "v"}}
ITEM = {"metadata": META, "spec": {"containers": []}, "status": {"phase": "Pending"}}
POD = {"kind": "Pod", "apiVersion": "v1", **ITEM}
CONFIG_MAP = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": META, "data": {"k": "v"}}
SECRET = {"kind": "Secret", "apiVersion": "v1", "metadata": META, "data": {"k": "dg=="}}
POD_LIST = {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "9"}, "items": [ITEM]}
TABLE = {
    "kind": "Table",
    "columnDefinitions": [{"name": "Name"}, {"name": "Status"}],
    "rows": [{"cells": ["a", "Running"]}],
}
EVENT = {"metadata": {"name": "e"}, "reason": "Failed", "message": "m", "type": "Warning", "count": 1}
REVIEW = {"kind": "SelfSubjectAccessReview", "status": {"allowed": True}}
MANIFEST = json.dumps({"metadata": {"name": "a"}}).encode()


async def stream(events: AsyncIterator[Any]) -> list[Any]:
    return [event async for event in events]


@dataclass(frozen=True)
class Call:
    """A call of the client, an answer that it takes, and what it then gives."""

    make: Callable[[KubeClient], Awaitable[Any]]
    answer: Any
    gives: Any
    is_what_it_promises: Callable[[Any], bool]
    """What callers rely on."""


def is_object(thing: Any) -> bool:
    meta = thing["metadata"]
    texts = (meta["name"], meta["uid"], meta["resourceVersion"], meta["namespace"])
    return (
        all(isinstance(text, str) and text for text in texts)
        and (meta["name"], meta["namespace"]) == ("a", "n")
        and all(isinstance(value, str) for value in (meta.get("labels") or {}).values())
        and all(isinstance(value, str) for value in (thing.get("data") or {}).values())
    )


def is_list(found: Any) -> bool:
    return (
        all(pod["metadata"]["uid"] and isinstance(pod["spec"], dict) for pod in found.pods) and found.resource_version
    )


CALLS: Mapping[str, Call] = {
    "create_pod": Call(lambda api: api.create_pod("n", MANIFEST), POD, POD, is_object),
    "create_pod (dry run)": Call(
        lambda api: api.create_pod("n", MANIFEST, dry_run=True), POD, POD, lambda pod: pod["metadata"]["name"]
    ),
    "read_pod": Call(lambda api: api.read_pod("n", "a"), POD, POD, is_object),
    "list_pods": Call(
        lambda api: api.list_pods("n", selector="k=v"),
        POD_LIST,
        client.PodList(pods=[ITEM], resource_version="9"),
        is_list,
    ),
    "list_words": Call(
        lambda api: api.list_words("n", selector="k=v"),
        TABLE,
        {"a": "Running"},
        lambda found: all(isinstance(text, str) for pair in found.items() for text in pair),
    ),
    "patch_pod": Call(lambda api: api.patch_pod("n", "a", {}), POD, POD, is_object),
    "delete_pod": Call(lambda api: api.delete_pod("n", "a", uid="u"), POD, None, lambda gone: gone is None),
    "delete_unchanged": Call(lambda api: api.delete_unchanged(POD), POD, True, lambda gone: gone in (True, False)),
    "put_secret": Call(lambda api: api.put_secret(SECRET), SECRET, None, lambda put: put is None),
    "read_secret": Call(lambda api: api.read_secret("n", "a"), SECRET, SECRET, is_object),
    "read_config_map": Call(lambda api: api.read_config_map("n", "a"), CONFIG_MAP, CONFIG_MAP, is_object),
    "create_config_map": Call(lambda api: api.create_config_map("n", CONFIG_MAP), CONFIG_MAP, CONFIG_MAP, is_object),
    "patch_config_map": Call(lambda api: api.patch_config_map("n", "a", {}), CONFIG_MAP, CONFIG_MAP, is_object),
    "list_events": Call(
        lambda api: api.list_events("n", uid="u"),
        {"kind": "EventList", "items": [EVENT]},
        [EVENT],
        lambda found: all(isinstance(event["metadata"], dict) for event in found),
    ),
    "may": Call(
        lambda api: api.may("create", "pods", namespace="n"), REVIEW, True, lambda answer: answer in (True, False)
    ),
    "read_version": Call(
        lambda api: api.read_version(),
        {"gitVersion": "v1.36.2"},
        {"gitVersion": "v1.36.2"},
        lambda version: isinstance(version["gitVersion"], str),
    ),
}
STREAMS: Mapping[str, Callable[[KubeClient], Awaitable[Any]]] = {
    "watch_pods": lambda api: stream(api.watch_pods("n", selector="k=v", resource_version="7", silence_s=5)),
    "read_log": lambda api: api.read_log("n", "a"),
    "follow_log": lambda api: stream(api.follow_log("n", "a")),
}
"""Calls that give bytes, or events of which each stands alone."""


class World:
    """A server and a client of it, in an event loop that tests borrow."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.server = TinyServer()
        self.api: KubeClient | None = None

    def open(self) -> None:
        async def open_both() -> None:
            await self.server.__aenter__()
            access = server_access.Access(host=self.server.url, token=lambda: None, tls=True)
            self.api = await KubeClient(access).__aenter__()

        self.runner.run(open_both())

    def close(self) -> None:
        async def close_both() -> None:
            assert self.api is not None
            await self.api.__aexit__(None, None, None)
            await self.server.__aexit__(None, None, None)

        self.runner.run(close_both())
        self.runner.close()

    def ask(self, make: Callable[[KubeClient], Awaitable[Any]], answer: bytes) -> Any:
        """What the client gives, or one of our two errors; any other one is the test's failure."""
        self.server.answer = answer

        async def run() -> Any:
            try:
                return await asyncio.wait_for(make(self.api), 10)  # type: ignore[arg-type]
            except (errors.ApiError, errors.ApiUnavailable) as error:
                return error

        return self.runner.run(run())


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    made = World()
    made.open()
    yield made
    made.close()


def is_sent(error: Any) -> bool:
    """Nothing is known of a call that was sent."""
    return isinstance(error, errors.ApiUnavailable) and error.was_sent


@pytest.mark.parametrize("name", CALLS)
def test_an_answer_of_its_kind_is_given_on(world: World, name: str) -> None:
    call = CALLS[name]
    assert world.ask(call.make, tiny_server.json_answer(call.answer)) == call.gives


NONSENSE: Mapping[str, bytes] = {
    "null": tiny_server.answer(b"null"),
    "an empty object": tiny_server.answer(b"{}"),
    "an empty list": tiny_server.answer(b"[]"),
    "nothing": tiny_server.answer(b""),
    "204": b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
    "a number": tiny_server.answer(b"12345"),
    "text": tiny_server.answer(b'"created"'),
    "a success that says nothing": tiny_server.json_answer({"kind": "Status", "status": "Failure"}),
    "another kind": tiny_server.json_answer({"kind": "Service", "metadata": META, "spec": {}}),
    "Latin-1": tiny_server.answer(json.dumps({**POD, "note": "é"}, ensure_ascii=False).encode("latin-1")),
    "bad UTF-8": tiny_server.answer(b'{"kind": "Pod", "metadata": {"name": "\xff\xfe"}}'),
    "UTF-16": tiny_server.answer(json.dumps(POD).encode("utf-16")),
    "half an object": tiny_server.answer(json.dumps(POD).encode()[:30]),
    "less than it promises": tiny_server.answer(json.dumps(POD).encode())[:-10],
    "a deep one": tiny_server.answer(b"[" * 100_000),
    "a huge number": tiny_server.answer(b'{"kind": 1e999}'),
    "a page for people": tiny_server.answer(b"<html>please log in</html>", content_type="text/html"),
    "a redirect": tiny_server.answer(b"", status=302, headers={"Location": "https://login.example/"}),
    "not modified": tiny_server.answer(b"", status=304),
    "a status of another protocol": tiny_server.answer(b"{}", status=799),
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "nothing at all": b"",
    "half a header": b"HTTP/1.1 200 OK\r\nContent-Le",
    "wrong compression": tiny_server.answer(b"not gzip", headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("answer", NONSENSE)
@pytest.mark.parametrize("name", CALLS)
def test_nonsense_leaves_open_what_became_of_the_call(world: World, name: str, answer: str) -> None:
    """Under a status of success, or with none: the call was sent, and nothing more is known."""
    assert is_sent(world.ask(CALLS[name].make, NONSENSE[answer]))


@pytest.mark.parametrize("name", ["create_pod", "read_pod", "patch_pod", "create_config_map", "patch_config_map"])
@pytest.mark.parametrize("field", ["name", "namespace", "uid", "resourceVersion"])
@pytest.mark.parametrize("value", [None, "", 7, ["a"], {}])
def test_an_object_without_its_identity_is_none(world: World, name: str, field: str, value: Any) -> None:
    """Without uid or version nobody could tell later which object it was."""
    call = CALLS[name]
    answer = copy.deepcopy(call.answer)
    answer["metadata"][field] = value
    assert is_sent(world.ask(call.make, tiny_server.json_answer(answer)))
    del answer["metadata"][field]
    assert is_sent(world.ask(call.make, tiny_server.json_answer(answer)))


@pytest.mark.parametrize("name", ["read_pod", "patch_pod", "read_secret", "read_config_map", "patch_config_map"])
@pytest.mark.parametrize("field", ["name", "namespace"])
def test_an_answer_about_another_object_is_none(world: World, name: str, field: str) -> None:
    call = CALLS[name]
    answer = copy.deepcopy(call.answer)
    answer["metadata"][field] = "another"
    assert is_sent(world.ask(call.make, tiny_server.json_answer(answer)))


def test_one_pod_that_cannot_be_read_spoils_its_list(world: World) -> None:
    """A list without it would say that the pod is gone."""
    spoilt = {**POD_LIST, "items": [ITEM, {**ITEM, "metadata": {"name": "b"}}]}
    assert is_sent(world.ask(CALLS["list_pods"].make, tiny_server.json_answer(spoilt)))


def test_an_error_quotes_no_value(world: World) -> None:
    """An answer may hold a secret."""
    secret = {**SECRET, "data": {"password": 4711}}
    error = world.ask(CALLS["read_secret"].make, tiny_server.json_answer(secret))
    assert is_sent(error)
    assert "4711" not in str(error)


# --- errors of the server ---

FAILURE = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Why", "message": "words"}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 413, 415, 422, 429, 500, 501, 503, 504])
def test_an_error_in_the_servers_words(world: World, status: int) -> None:
    error = world.ask(
        CALLS["create_pod"].make, tiny_server.json_answer(FAILURE, status=status, headers={"Retry-After": "7"})
    )
    assert (error.status, error.reason, error.message, error.retry_after_s) == (status, "Why", "words", 7.0)


@pytest.mark.parametrize("status", [400, 403, 404, 409, 410, 422])
@pytest.mark.parametrize("body", [b"404 page not found", b"{}", b"null", b"[]", b"", b'{"kind": "Pod"}'])
def test_a_proxys_word_on_an_object_does_not_count(world: World, status: int, body: bytes) -> None:
    """ "Not found" of whoever stands in between does not mean that our pod is gone."""
    for name in ("read_pod", "delete_pod", "delete_unchanged", "put_secret"):
        assert is_sent(world.ask(CALLS[name].make, tiny_server.answer(body, status=status)))


@pytest.mark.parametrize(
    ("status", "reason"),
    [(401, "Unauthorized"), (429, "TooManyRequests"), (500, "InternalError"), (502, "BadGateway"), (599, "Unknown")],
)
def test_an_error_that_needs_no_words(world: World, status: int, reason: str) -> None:
    """API servers that are busy answer in plain text."""
    error = world.ask(CALLS["read_pod"].make, tiny_server.answer(b"Too many\nrequests", status=status))
    assert (error.status, error.reason, error.message) == (status, reason, "Too many requests")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("1", 1.0),
        ("0", 0.0),
        ("2.5", 2.5),
        ("-3", None),
        ("nan", None),
        ("inf", None),
        ("", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)
def test_when_to_come_back(world: World, header: str, seconds: float | None) -> None:
    answer = tiny_server.json_answer(FAILURE, status=429, headers={"Retry-After": header})
    assert world.ask(CALLS["read_pod"].make, answer).retry_after_s == seconds


def test_a_server_that_is_not_there_was_asked_nothing() -> None:
    async def ask() -> None:
        async with TinyServer() as gone:
            access = server_access.Access(host=gone.url, token=lambda: None, tls=True)
        async with KubeClient(access) as api:
            with pytest.raises(errors.ApiUnavailable) as caught:
                await api.create_pod("n", MANIFEST)
            assert not caught.value.was_sent
            assert api.counts == {("create", "none"): 1}

    asyncio.run(ask())


# --- whatever comes ---

SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=5)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))


def places(thing: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values inside."""
    pairs = thing.items() if isinstance(thing, dict) else enumerate(thing) if isinstance(thing, list) else ()
    for key, value in pairs:
        yield (*at, key)
        yield from places(value, (*at, key))


@st.composite
def spoilt(draw: st.DrawFn, whole: Any) -> Any:
    """An answer with one value gone or another one in its place."""
    path = draw(st.sampled_from(list(places(whole))))
    made = copy.deepcopy(whole)
    at = made
    for step in path[:-1]:
        at = at[step]
    if draw(st.booleans()):
        del at[path[-1]]
    else:
        at[path[-1]] = draw(VALUES)
    return made


@st.composite
def answers_to(draw: st.DrawFn, whole: Any) -> bytes:
    """Bytes of an answer: any JSON, a spoilt or cut answer, any bytes; of any status."""
    things = VALUES | spoilt(whole) | st.just(whole)
    encoded = things.map(lambda thing: json.dumps(thing, ensure_ascii=False).encode("utf-8", errors="replace"))
    cut = st.tuples(encoded, st.integers(0, 200)).map(lambda pair: pair[0][: pair[1]])
    latin = things.map(lambda thing: json.dumps(thing, ensure_ascii=False).encode("latin-1", errors="replace"))
    body = draw(encoded | cut | latin | st.binary(max_size=50))
    status = draw(st.just(200) | st.sampled_from([200, 201, 202, 204, 206, 302, 304, 404, 409, 500]))
    return tiny_server.answer(body, status=status)


def check_any_answer(world: World, name: str, answer: bytes) -> None:
    call = CALLS[name]
    given = world.ask(call.make, answer)
    if isinstance(given, errors.ApiUnavailable):
        assert given.was_sent
    elif not isinstance(given, errors.ApiError):
        assert call.is_what_it_promises(given)


@pytest.mark.parametrize("name", CALLS)
def test_whatever_comes_it_is_what_its_kind_says_or_no_answer(world: World, name: str) -> None:
    """For every call: the promised value, ApiError, or ApiUnavailable of a call that was sent; nothing else."""

    @settings(max_examples=25)
    @given(answers_to(CALLS[name].answer))
    def run(answer: bytes) -> None:
        check_any_answer(world, name, answer)

    run()


LINES = st.lists(
    st.sampled_from(
        [
            json.dumps({"type": "ADDED", "object": POD}).encode(),
            json.dumps({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}).encode(),
            json.dumps({"type": "ERROR", "object": {"code": 410}}).encode(),
        ]
    )
    | spoilt({"type": "MODIFIED", "object": POD}).map(lambda event: json.dumps(event).encode())
    | VALUES.map(lambda thing: json.dumps(thing).encode())
    | st.binary(max_size=20).map(lambda line: line.replace(b"\n", b" ").replace(b"\r", b" ")),
    max_size=4,
)


@settings(max_examples=60)
@given(lines=LINES)
def test_each_line_of_a_watch_is_an_event_or_unreadable(world: World, lines: list[bytes]) -> None:
    """One line that is none spoils no other, and what is given on can be used."""
    seen = world.ask(STREAMS["watch_pods"], tiny_server.answer(b"".join(line + b"\n" for line in lines)))
    assert len(seen) == len([line for line in lines if line.strip()])
    for event in seen:
        if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
            assert event["object"]["metadata"]["uid"]
            assert event["object"]["metadata"]["resourceVersion"]
        elif event["type"] == "BOOKMARK":
            assert event["object"]["metadata"]["resourceVersion"]
        else:
            assert event["type"] in ("ERROR", "UNREADABLE")


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("answer", ["a page for people", "a redirect", "204", "no HTTP", "wrong compression"])
def test_a_stream_that_is_none_is_no_answer(world: World, name: str, answer: str) -> None:
    assert is_sent(world.ask(STREAMS[name], NONSENSE[answer]))


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_breaks_off_says_so(world: World, name: str) -> None:
    """Half a log must not be taken for all of it."""
    assert is_sent(world.ask(STREAMS[name], tiny_server.answer(b"x\n" * 100)[:-5]))


def test_a_line_may_be_long_and_come_in_pieces(world: World) -> None:
    """aiohttp's own reader of lines gives up at 64 KiB; a pod may have 1.5 MB."""
    pod = copy.deepcopy(POD)
    pod["metadata"] = {**META, "annotations": {"message": "x" * 1_000_000}}
    line = json.dumps({"type": "ADDED", "object": pod}).encode() + b"\n"
    assert world.ask(STREAMS["watch_pods"], tiny_server.answer(line)) == [{"type": "ADDED", "object": pod}]


def test_a_log_is_given_byte_by_byte(world: World) -> None:
    """Whatever it holds."""
    text = bytes(range(256)) * 3
    answer = tiny_server.answer(text, content_type="text/plain")
    assert world.ask(STREAMS["read_log"], answer) == text
    assert b"".join(world.ask(STREAMS["follow_log"], answer)) == text


# --- what is sent ---


def target(world: World, make: Callable[[KubeClient], Awaitable[Any]]) -> str:
    world.ask(make, tiny_server.answer(b"{}"))
    return world.server.requests[-1].target


def test_names_cannot_leave_their_place_in_the_path(world: World) -> None:
    asked = target(world, lambda api: api.read_pod("n/../m", "a?b#c/d"))
    assert asked == "/api/v1/namespaces/n%2F..%2Fm/pods/a%3Fb%23c%2Fd"


def test_pages_are_read_to_their_end(world: World) -> None:
    def page(seen: tiny_server.Seen) -> bytes:
        is_second = "continue=" in seen.target
        meta = {"resourceVersion": "9"} | ({} if is_second else {"continue": "more"})
        return tiny_server.json_answer({**POD_LIST, "metadata": meta})

    found = world.ask(CALLS["list_pods"].make, page)  # type: ignore[arg-type]
    assert found == client.PodList(pods=[ITEM, ITEM], resource_version="9")


def test_requests_are_counted_by_verb_and_status() -> None:
    async def ask() -> None:
        async with TinyServer() as server:
            access = server_access.Access(host=server.url, token=lambda: None, tls=True)
            async with KubeClient(access) as api:
                server.answer = tiny_server.json_answer(POD, status=201)
                await api.create_pod("n", MANIFEST)
                server.answer = tiny_server.json_answer(FAILURE, status=409)
                with pytest.raises(errors.ApiError):
                    await api.create_pod("n", MANIFEST)
                await api.delete_pod("n", "a", uid="u")
                server.answer = b""
                with pytest.raises(errors.ApiUnavailable):
                    await api.read_pod("n", "a")
                assert api.counts == {
                    ("create", "201"): 1,
                    ("create", "409"): 1,
                    ("delete", "409"): 1,
                    ("get", "none"): 1,
                }

    asyncio.run(ask())


@asynccontextmanager
async def let_in(
    access_of: Callable[[TinyServer], server_access.Access],
) -> AsyncIterator[tuple[TinyServer, KubeClient]]:
    async with TinyServer() as server:
        server.answer = tiny_server.json_answer({"gitVersion": "v1"})
        async with KubeClient(access_of(server)) as api:
            yield server, api


def test_credentials_are_asked_for_anew_after_a_refusal() -> None:
    """A token that was rotated under us costs one refused call, not ten seconds of them."""
    tokens = iter(["Bearer old", "Bearer new"])
    renewed: list[bool] = []

    def access(server: TinyServer) -> server_access.Access:
        return server_access.Access(
            host=server.url,
            token=lambda: next(tokens),
            tls=True,
            renew=lambda *, is_refused: renewed.append(is_refused),
        )

    async def ask() -> None:
        async with let_in(access) as (server, api):
            server.answer = tiny_server.answer(b"", status=401)
            with pytest.raises(errors.ApiError, match="401"):
                await api.read_version()
            server.answer = tiny_server.json_answer({"gitVersion": "v1"})
            await api.read_version()
            await api.read_version()
            assert [seen.headers["authorization"] for seen in server.requests] == [
                "Bearer old",
                "Bearer new",
                "Bearer new",
            ]
            assert renewed == [False, True]

    asyncio.run(ask())


def test_credentials_that_cannot_be_had_are_no_answer_of_a_call_that_was_not_sent() -> None:
    def fail(*, is_refused: bool) -> None:
        raise errors.DispatcherError("the program gke-auth ended with 1: expired login")

    def access(server: TinyServer) -> server_access.Access:
        return server_access.Access(host=server.url, token=lambda: None, tls=True, renew=fail)

    async def ask() -> None:
        async with let_in(access) as (server, api):
            with pytest.raises(errors.ApiUnavailable, match="expired login") as caught:
                await api.read_version()
            assert not caught.value.was_sent
            assert server.requests == []

    asyncio.run(ask())


def test_a_server_behind_a_path_is_asked_behind_it() -> None:
    """Gateways serve many clusters, each at a path."""

    def access(server: TinyServer) -> server_access.Access:
        return server_access.Access(host=f"{server.url}/k8s/clusters/c-1", token=lambda: None, tls=True)

    async def ask() -> None:
        async with let_in(access) as (server, api):
            await api.read_version()
            assert server.requests[-1].target == "/k8s/clusters/c-1/version"

    asyncio.run(ask())
