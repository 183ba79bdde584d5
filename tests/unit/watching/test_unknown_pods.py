"""Pods of ours that no attempt here knows: passed on once, with their message, wherever it travels."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dispatcher import errors
from dispatcher.attempts.celery_side import Found
from dispatcher.manifests import labels, message_secret
from dispatcher.watching.unknown_pods import UnknownPods
from tests import builders, fast_time
from tests.cluster_side import ClusterSide

LONG_S = 120.0
"""More than it tries."""


def using(test: Callable[[ClusterSide, UnknownPods], Awaitable[Any]]) -> None:
    """Runs a test on the parts of a dispatcher at a fake API server."""

    async def run() -> None:
        side = ClusterSide()
        found = UnknownPods(side.api, celery=side.celery, background=side.background)  # type: ignore[arg-type]
        try:
            await test(side, found)
        finally:
            await side.close()

    fast_time.run(run())


def secretive(uid: str = "u", name: str = "p") -> dict[str, Any]:
    """A pod whose message is in a Secret: of the message it carries a stub."""
    made = builders.attempt(task_id="a", kwargs={"secret": 7})
    pod = builders.pod_of(made, builders.running(), uid=uid, name=name, namespace="default")
    annotations = pod["metadata"]["annotations"]
    annotations[labels.MESSAGE_ANNOTATION] = message_secret.stub(made.message).encode()
    annotations[message_secret.ANNOTATION] = name
    return pod


def put_secret(side: ClusterSide, pod: dict[str, Any], text: str = "the message") -> None:
    """The Secret of such a pod, in the cluster."""
    side.api.secrets["default", pod["metadata"]["name"]] = message_secret.secret(pod, text)


def test_a_pod_that_carries_its_message_is_passed_on_as_it_is() -> None:
    """At once, and without a call."""

    async def test(side: ClusterSide, unknown: UnknownPods) -> None:
        pod = builders.pod_of(builders.attempt(), builders.ended(0))
        unknown.found(pod, is_ended=True)
        assert side.posted == [Found(pod=pod, is_ended=True)]
        assert side.api.calls == {}

    using(test)


def test_a_message_in_a_secret_is_read_first() -> None:
    """What is passed on is the pod as if it carried its message; what the watch gave is not changed."""

    async def test(side: ClusterSide, unknown: UnknownPods) -> None:
        pod = secretive()
        stub = pod["metadata"]["annotations"][labels.MESSAGE_ANNOTATION]
        put_secret(side, pod)
        unknown.found(pod, is_ended=False)
        await side.settle()
        (event,) = side.posted
        assert event == Found(pod=message_secret.with_message(pod, "the message"), is_ended=False)
        assert pod["metadata"]["annotations"][labels.MESSAGE_ANNOTATION] == stub

    using(test)


def test_while_a_message_is_read_its_pod_is_passed_on_once() -> None:
    """However many events there are; and again when it is found later."""

    async def test(side: ClusterSide, unknown: UnknownPods) -> None:
        pod = secretive()
        put_secret(side, pod)
        gate = side.api.hold("read_secret")
        for _ in range(3):
            unknown.found(pod, is_ended=False)
        gate.set()
        await side.settle()
        assert (len(side.posted), side.api.calls["read_secret"]) == (1, 1)
        unknown.found(pod, is_ended=True)
        await side.settle()
        assert [event.is_ended for event in side.posted] == [False, True]

    using(test)


def test_a_pod_of_the_same_name_with_another_uid_is_read_for_itself() -> None:
    """The first one may have been deleted meanwhile."""

    async def test(side: ClusterSide, unknown: UnknownPods) -> None:
        put_secret(side, secretive())
        gate = side.api.hold("read_secret")
        for uid in ("first", "second"):
            unknown.found(secretive(uid), is_ended=False)
        gate.set()
        await side.settle()
        assert sorted(event.pod["metadata"]["uid"] for event in side.posted) == ["first", "second"]

    using(test)


def test_a_secret_that_comes_a_little_later_than_its_pod_is_waited_for() -> None:
    """It is created after the pod, for it names the pod as its owner."""

    async def test(side: ClusterSide, unknown: UnknownPods) -> None:
        pod = secretive()
        unknown.found(pod, is_ended=False)
        await asyncio.sleep(3)
        assert side.posted == []
        put_secret(side, pod)
        await asyncio.sleep(LONG_S)
        assert len(side.posted) == 1

    using(test)


@pytest.mark.parametrize(
    "fault",
    [
        errors.ApiUnavailable("no answer"),
        errors.ApiError(429, "TooManyRequests", "no"),
        errors.ApiError(403, "F", "no"),
    ],
    ids=str,
)
def test_an_api_server_in_trouble_is_asked_again(fault: Exception) -> None:
    """A message is not lost for one answer."""

    async def test(side: ClusterSide, unknown: UnknownPods) -> None:
        pod = secretive()
        put_secret(side, pod)
        side.api.fail("read_secret", fault, times=3)
        unknown.found(pod, is_ended=False)
        await asyncio.sleep(LONG_S)
        assert (len(side.posted), side.api.calls["read_secret"]) == (1, 4)

    using(test)


@pytest.mark.parametrize("data", [None, {}, {"message": None}, {"message": "no base64!"}, {"other": "eA=="}], ids=str)
def test_a_message_that_is_missing_is_named_once(caplog: pytest.LogCaptureFixture, data: Any) -> None:
    """Its delivery was not acknowledged, and comes again; if it is there when the pod is seen next, it is read."""

    async def test(side: ClusterSide, unknown: UnknownPods) -> None:
        pod = secretive()
        if data is not None:
            put_secret(side, pod)
            side.api.secrets["default", "p"]["data"] = data
        unknown.found(pod, is_ended=False)
        await asyncio.sleep(LONG_S)
        assert (side.posted, side.background._tasks) == ([], set())
        (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert "its message is missing pod=p" in line
        assert side.api.calls["read_secret"] < 10
        put_secret(side, pod)
        unknown.found(pod, is_ended=False)
        await side.settle()
        assert len(side.posted) == 1

    using(test)


def test_a_fault_while_one_message_is_read_does_not_hide_its_pod_for_ever() -> None:
    """It is read anew when it is seen next."""

    async def test(side: ClusterSide, unknown: UnknownPods) -> None:
        pod = secretive()
        put_secret(side, pod)
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        side.api.fail("read_secret", RuntimeError("a fault that nobody foresaw"))
        unknown.found(pod, is_ended=False)
        await side.settle()
        unknown.found(pod, is_ended=False)
        await side.settle()
        assert len(side.posted) == 1

    using(test)
