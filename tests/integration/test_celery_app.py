"""The matrix: what Celery promises holds in a pod as in a prefork worker. One application, one broker, both sides.

Each row runs on both queues at once and says what it saw; the two must be alike, and as expected where a value is
given. The matrix is printed when its last row is done.
"""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import chain, chord, group
from celery.canvas import chunks
from celery.result import AsyncResult

from dispatcher import on_pod
from tests import parts
from tests.integration import shop_parts
from tests.integration.shop_parts import PODS, WORKER, Shop
from tests.integration.yard_parts import pods_of

WAIT_S = 60
READY = {"SUCCESS", "FAILURE", "REVOKED"}


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two queues, and what a row may do on it."""

    shop: Shop
    queue: str

    def send(self, task: str, *args: Any, **options: Any) -> AsyncResult:
        return self.shop.send(task, *args, queue=options.pop("queue", self.queue), **options)

    def s(self, task: str, *args: Any, **options: Any) -> Any:
        return self.shop.signature(task, *args, queue=self.queue, **options)

    def other(self, task: str, *args: Any, **options: Any) -> Any:
        """A signature for the other side."""
        return self.shop.signature(task, *args, queue=WORKER if self.queue == PODS else PODS, **options)

    def run(self, task: str, *args: Any, **options: Any) -> Any:
        return self.ended(self.send(task, *args, **options))

    def ended(self, result: Any) -> Any:
        """Its value; or its state, its exception's type and arguments, and the author's lines in its traceback."""
        parts.eventually(lambda: result.state in READY, WAIT_S, what=f"{result.id} is final, was {result.state}")
        if result.state == "SUCCESS":
            return result.result
        error = result.result
        lines = re.findall(r'behaviours\.py", line (\d+), in (\w+)', result.traceback or "")
        return [result.state, type(error).__name__, *map(str, error.args), lines]

    @property
    def node(self) -> str:
        return "dispatcher" if self.queue == PODS else "worker"

    def lose_worker(self, run: str) -> None:
        """Ends the process or the pod that runs a body, as infrastructure does."""
        pid = parts.eventually(lambda: self.shop.noted(run), WAIT_S, what="the body runs")[0]
        if self.queue == PODS:
            name = next(name for name, pod in pods_of(self.shop).items() if _runs(pod, run))
            shop_parts.api_delete(self.shop.kubeconfig, f"/api/v1/namespaces/default/pods/{name}")
        else:
            os.kill(int(pid), signal.SIGKILL)


def _runs(pod: dict[str, Any], task_id: str) -> bool:
    return pod["metadata"]["annotations"]["podyard.dev/attempt-id"] == task_id


Row = Callable[[Side], Any]
ROWS: dict[str, tuple[Row, Any]] = {}
ANY = object()


def row(name: str, expected: Any = ANY) -> Callable[[Row], Row]:
    """Adds a row to the matrix."""

    def add(run: Row) -> Row:
        ROWS[name] = (run, expected)
        return run

    return add


def same(name: str, task: str, *args: Any, expected: Any = ANY, **options: Any) -> None:
    """A row that is one call."""
    ROWS[name] = (lambda side: side.run(task, *args, **options), expected)


same("result", "add", 2, 3, expected=5)
same("result, nested and of any script", "echo", {"ключ": [1, None, True, 2.5]}, größe="∞")
same("result of some size", "echo", "x" * 50_000)
same("exception", "fail", "ValueError", "größer als ∞", 7)
same("exception that is a LookupError", "fail", "KeyError", "k")
same("exception of the application's own class", "fail", "TaskError", 42)
same("self.retry", "flaky", 2, expected=2)
same("self.retry, exhausted: the exception", "flaky", 5)
same("self.retry with other arguments", "other_arguments", 0, expected=[2, 2])
same("soft time limit, handled", "patient", 30, soft_time_limit=1, expected="cleaned up")
same("soft time limit, not handled", "nap", 30, soft_time_limit=1)
same("soft time limit of the task", "limited_softly")
same("hard time limit", "nap", 30, time_limit=1, expected=["FAILURE", "TimeLimitExceeded", "1", []])
same("hard time limit of the task", "limited_hard", expected=["FAILURE", "TimeLimitExceeded", "1", []])
same("time limits while the body is short", "nap", 1.3, time_limit=2, soft_time_limit=2, expected="slept")
same("soft time limit swallowed", "patient", 30, soft_time_limit=1, time_limit=5, expected="cleaned up")
SLOW = on_pod(pod_override={"spec": {"containers": [{"env": [{"name": "SHOP_SLOW", "value": "2"}]}]}})
same("soft limit below a slow import", "patient", 30, soft_time_limit=1, time_limit=4, expected="cleaned up", **SLOW)
same("hard limit below a slow import", "nap", 1, time_limit=1.9, expected="slept", **SLOW)
for _kind in ("defaultdict", "Counter", "signature", "chain", "tuple", "int keys", "bytes", "decimal, date", "result"):
    same(f"result of a kind: {_kind}", "of_kind", _kind)
for _kind in ("named only", "named only, a ValueError", "formats its text"):
    same(f"exception of a kind: {_kind}", "fail_unusually", _kind)
same("acks_late", "late", 7, expected=7)
same("custom Task.__call__", "called", 1, expected=["called", 1])
same("worker_process_init", "resources", expected=["connection"])
same("serialiser msgpack", "echo", [1, {"a": b"bytes".decode()}], serializer="msgpack")
same("serialiser json", "echo", [1, {"a": 2}], serializer="json")
same("compression zlib", "echo", "x" * 5000, compression="zlib")
same("compression bzip2", "echo", "x" * 5000, compression="bzip2")


@row("self.retry, exhausted: MaxRetriesExceededError")
def _(side: Side) -> Any:
    sent = side.send("hopeless")
    return [part.replace(sent.id, "ID") if isinstance(part, str) else part for part in side.ended(sent)]


@row("autoretry_for with back-off", [["FAILURE", "OSError", "try 2"], True])
def _(side: Side) -> Any:
    run = f"backing-off-{side.queue}"
    ended = side.run("backing_off", run)
    tries = [float(line) for line in side.shop.noted(run)]
    return [ended[:3], len(tries) == 3 and tries[1] - tries[0] >= 1 and tries[2] - tries[1] >= 2]


@row("countdown", True)
def _(side: Side) -> Any:
    asked = time.time()
    return 1.0 <= side.run("moment", countdown=1) - asked < 20


@row("eta", True)
def _(side: Side) -> Any:
    eta = datetime.now(UTC) + timedelta(seconds=1)
    return eta.timestamp() <= side.run("moment", eta=eta) < eta.timestamp() + 20


@row("expires", ["REVOKED", "TaskRevokedError", "expired", []])
def _(side: Side) -> Any:
    return side.run("add", 1, 1, expires=datetime.now(UTC) - timedelta(seconds=5))


@row("chain", 10)
def _(side: Side) -> Any:
    return side.ended(chain(side.s("add", 1, 2), side.s("add", 3), side.s("add", 4)).apply_async())


@row("chain, pod and worker in turns", 10)
def _(side: Side) -> Any:
    return side.ended(chain(side.s("add", 1, 2), side.other("add", 3), side.s("add", 4)).apply_async())


@row("chain with an immutable signature", [["now"], {}])
def _(side: Side) -> Any:
    return side.ended(chain(side.s("add", 1, 2), side.s("echo", "now", immutable=True)).apply_async())


@row("chain that fails: later tasks do not run", [["FAILURE", "ValueError", "no"], "FAILURE", []])
def _(side: Side) -> Any:
    run = f"broken-{side.queue}"
    last = chain(side.s("fail", "ValueError", "no"), side.s("nap", run)).apply_async()
    return [side.ended(last.parent)[:3], side.ended(last)[0], side.shop.noted(run)]


@row("group", [2, 4, 6])
def _(side: Side) -> Any:
    result = group(side.s("add", n, n) for n in (1, 2, 3)).apply_async()
    return [side.ended(child) for child in result.results]


@row("chord", 12)
def _(side: Side) -> Any:
    return side.ended(chord([side.s("add", n, n) for n in (1, 2, 3)], side.s("total")).apply_async())


@row("chord, header and body on both sides", 18)
def _(side: Side) -> Any:
    header = [side.s("add", 1, 2), side.other("add", 3, 4), side.s("add", 3, 5)]
    return side.ended(chord(header, side.other("total")).apply_async())


@row("chord whose header fails", ["FAILURE", "ChordError", "ValueError('no')"])
def _(side: Side) -> Any:
    result = chord([side.s("add", 1, 1), side.s("fail", "ValueError", "no")], side.s("total")).apply_async()
    ended = side.ended(result)
    return [*ended[:2], "ValueError('no')" if "ValueError('no')" in ended[2] else ended[2]]


@row("chain of a group of chains of both sides", 28)
def _(side: Side) -> Any:
    inner = group(chain(side.s("add", n, 1), side.other("add", 10)) for n in (1, 2))
    return side.ended(chain(inner, side.s("total"), side.s("add", 3)).apply_async())


@row("chunks", [[3, 7], [11]])
def _(side: Side) -> Any:
    parts_of_two = chunks(side.shop.signature("add"), [[1, 2], [3, 4], [5, 6]], 2, app=side.shop.client).group()
    result = parts_of_two.apply_async(queue=side.queue)
    return [side.ended(child) for child in result.results]


@row("map, starmap", [[[2, 4]], [[3, 7]]])
def _(side: Side) -> Any:
    task = side.shop.signature("add")
    starmap = side.shop.client.signature(
        "celery.starmap", kwargs={"task": dict(task), "it": [[1, 2], [3, 4]]}, queue=side.queue
    )
    maps = side.shop.client.signature(
        "celery.map", kwargs={"task": dict(side.shop.signature("size_of")), "it": ["ab", "abcd"]}, queue=side.queue
    )
    return [[side.ended(maps.apply_async())], [side.ended(starmap.apply_async())]]


@row("link", ["linked 3"])
def _(side: Side) -> Any:
    run = f"link-{side.queue}"
    side.run("add", 1, 2, link=side.s("linked", run))
    return parts.eventually(lambda: side.shop.noted(run), WAIT_S)


@row("link_error, new style", ["ValueError True"])
def _(side: Side) -> Any:
    run = f"regret-{side.queue}"
    side.run("fail", "ValueError", "no", task_id=run, link_error=side.s("regret", run))
    return parts.eventually(lambda: side.shop.noted(run), WAIT_S)


@row("link_error, old style", ["regret"])
def _(side: Side) -> Any:
    run = f"old-regret-{side.queue}"
    side.run("fail", "ValueError", "no", task_id=run, link_error=side.s("old_regret"))
    return parts.eventually(lambda: side.shop.noted(run), WAIT_S)


@row("request: id, retries, headers, limits, delivery …")
def _(side: Side) -> Any:
    about = side.run(
        "about",
        task_id=f"about-{side.queue}",
        headers={"customer": "Zoë"},
        time_limit=100,
        soft_time_limit=90,
        priority=7,
        shadow="about.shadow",
    )
    assert about["routing_key"] == side.queue
    return {key: _alike(value, side) for key, value in about.items()}


@row("request: root and parent", True)
def _(side: Side) -> Any:
    last = chain(side.s("family"), side.s("family"), side.s("family")).apply_async()
    side.ended(last)
    first, second, third = last.parent.parent.result, last.parent.result, last.result
    return (first["root"], second["root"], third["root"]) == (first["id"],) * 3 and (
        second["parent"],
        third["parent"],
        first["parent"],
    ) == (first["id"], second["id"], None)


@row("reject_on_worker_lost: runs again", ["again", 2])
def _(side: Side) -> Any:
    run = f"survivor-{side.queue}"
    sent = side.send("survivor", run, task_id=run)
    side.lose_worker(run)
    return [side.ended(sent), len(side.shop.noted(run))]


@row("Reject(requeue=True) with acks_late", ["done", 2])
def _(side: Side) -> Any:
    run = f"sent-back-{side.queue}"
    return [side.run("sent_back", run), len(side.shop.noted(run))]


@row("hard limit with acks_late, acks_on_failure_or_timeout=False: runs again", 2)
def _(side: Side) -> Any:
    """Each look is a new one: a client remembers the failure of the first run."""
    run = f"over-time-{side.queue}"
    sent = side.send("late_and_limited", run)
    parts.eventually(lambda: len(side.shop.noted(run)) == 2, WAIT_S, what="it runs again")
    parts.eventually(lambda: side.shop.client.AsyncResult(sent.id).state == "SUCCESS", WAIT_S, what="the second's end")
    return len(side.shop.noted(run))


@row("ignore_result of the task", ["ran", "PENDING"])
def _(side: Side) -> Any:
    run = f"ignored-{side.queue}"
    sent = side.send("ignored", run)
    ran = parts.eventually(lambda: side.shop.noted(run), WAIT_S)
    side.run("add", 1, 1)
    return [*ran, sent.state]


@row("ignore_result of the call", "PENDING")
def _(side: Side) -> Any:
    sent = side.send("nap", 0, f"quiet-{side.queue}", ignore_result=True)
    parts.eventually(lambda: side.shop.noted(f"quiet-{side.queue}"), WAIT_S)
    side.run("add", 1, 1)
    return sent.state


@row("track_started", ["STARTED", "done"])
def _(side: Side) -> Any:
    sent = side.send("tracked", 3)
    parts.eventually(lambda: sent.state == "STARTED", WAIT_S)
    return ["STARTED", side.ended(sent)]


@row("revoke before the run", ["REVOKED", "TaskRevokedError", "revoked", []])
def _(side: Side) -> Any:
    sent = side.send("add", 1, 1, countdown=2)
    side.shop.client.control.revoke(sent.id)
    return side.ended(sent)


@row("revoke(terminate=True) during the run", ["REVOKED", "TaskRevokedError"])
def _(side: Side) -> Any:
    run = f"revoked-{side.queue}"
    sent = side.send("nap", 60, run)
    parts.eventually(lambda: side.shop.noted(run), WAIT_S)
    side.shop.client.control.revoke(sent.id, terminate=True)
    return side.ended(sent)[:2]  # a prefork worker says "revoked" or "terminated", whichever of two ways is faster


@row("rate limit", True)
def _(side: Side) -> Any:
    started = time.monotonic()
    for sent in [side.send("slow_lane", number) for number in range(4)]:
        side.ended(sent)
    return time.monotonic() - started >= 1.2


@row("Ignore", "PENDING")
def _(side: Side) -> Any:
    sent = side.send("gives_up")
    side.run("add", 1, 1)
    return sent.state


@row("Reject(requeue=False)", ["FAILURE", "Reject"])
def _(side: Side) -> Any:
    return side.run("rejects")[:2]


for _kind in ("set", "dataclass"):

    @row(f"result without a JSON form: {_kind}", "FAILURE")
    def _(side: Side, kind: str = _kind) -> Any:
        return side.run("of_kind", kind)[0]


for _how in ("success", "fail", "retry"):

    @row(f"hooks of a custom Task class, {_how}")
    def _(side: Side, how: str = _how) -> Any:
        run = f"hooked-{how}-{side.queue}"
        side.run("hooked", how, task_id=run)
        return _settled(side, run, "after_return")

    @row(f"signals, {_how}")
    def _(side: Side, how: str = _how) -> Any:
        run = f"signals-{how}-{side.queue}"
        side.run("signalling", how, task_id=run)
        return sorted(_settled(side, run, "postrun" if how != "success" else "task_success"))


@row("hooks of a custom Task class, hard limit")
def _(side: Side) -> Any:
    run = f"hooked-out-{side.queue}"
    side.run("hooked", "time out", task_id=run, time_limit=1)
    return [line for line in _settled(side, run, "on_failure") if line != "before_start"]


@row("result expiry", True)
def _(side: Side) -> Any:
    sent = side.send("add", 1, 1)
    side.ended(sent)
    backend = side.shop.client.backend
    return 500 < backend.client.ttl(backend.get_key_for_task(sent.id)) <= 600


@row("inspect active, query_task", True)
def _(side: Side) -> Any:
    run = f"inspected-{side.queue}"
    sent = side.send("nap", 4, run)
    parts.eventually(lambda: side.shop.noted(run), WAIT_S)
    inspect, node = side.shop.inspect(side.node), side.shop.node(side.node)
    entry = next(entry for entry in inspect.active()[node] if entry["id"] == sent.id)
    kind, asked = inspect.query_task(sent.id)[node][sent.id]
    return (entry["name"], kind, asked["id"], bool(entry["worker_pid"])) == (
        f"{shop_parts.BEHAVIOURS}.nap",
        "active",
        sent.id,
        True,
    )


@row("inspect scheduled, reserved, stats, registered", True)
def _(side: Side) -> Any:
    sent = side.send("add", 1, 1, countdown=4)
    inspect, node = side.shop.inspect(side.node), side.shop.node(side.node)
    parts.eventually(lambda: sent.id in {one["request"]["id"] for one in inspect.scheduled()[node]}, 10)
    return (
        isinstance(inspect.reserved()[node], list)
        and inspect.stats()[node]["pool"]["max-concurrency"] > 1
        and f"{shop_parts.BEHAVIOURS}.add" in inspect.registered()[node]
    )


def _alike(value: Any, side: Side) -> Any:
    """A value without what must differ: the queue's name."""
    return value.replace(side.queue, "Q") if isinstance(value, str) else value


def _settled(side: Side, run: str, last: str) -> list[str]:
    """What hooks said, once nothing more comes: they may be called after the result is stored."""
    parts.eventually(lambda: any(last in line for line in side.shop.noted(run)), 10)
    side.run("add", 1, 1)
    return side.shop.noted(run)


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory,
    valkey_server: parts.Valkey,
    local_cluster_server: parts.LocalCluster,
) -> Iterator[Shop]:
    """The shop with one prefork worker and one dispatcher through plain Celery."""
    shop = Shop(
        folder=tmp_path_factory.mktemp("shop"),
        broker=valkey_server.fresh().url,
        kubeconfig=local_cluster_server.kubeconfig,
        deployment="matrix",
    )
    try:
        shop.dispatcher()
        shop.worker()
        yield shop
    finally:
        shop.stop()


@pytest.fixture(scope="module")
def seen(shop: Shop, request: pytest.FixtureRequest) -> Iterator[dict[tuple[str, str], Future[Any]]]:
    """What each row saw on each side; all rows run at the same time, some at once."""
    wanted = {item.callspec.params.get("name") for item in request.session.items if hasattr(item, "callspec")}
    with ThreadPoolExecutor(12) as threads:
        cells = {
            (name, queue): threads.submit(run, Side(shop=shop, queue=queue))
            for name, (run, _) in ROWS.items()
            if name in wanted
            for queue in (PODS, WORKER)
        }
        yield cells


def _shown(cell: Future[Any]) -> str:
    error = cell.exception(120)
    return repr(cell.result()) if error is None else f"NOT OK: {type(error).__name__}"


@pytest.mark.parametrize("name", ROWS)
def test_it_holds_in_a_pod_as_in_a_prefork_worker(
    name: str, seen: dict[tuple[str, str], Future[Any]], record_property: Callable[[str, object], None]
) -> None:
    """One row of the matrix, which is printed at the end of the session."""
    record_property("pod and prefork", [name, *(_shown(seen[name, queue]) for queue in (PODS, WORKER))])
    pod, prefork = (seen[name, queue].result(120) for queue in (PODS, WORKER))

    assert pod == prefork
    if (expected := ROWS[name][1]) is not ANY:
        assert pod == expected
