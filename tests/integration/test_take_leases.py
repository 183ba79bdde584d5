"""What a consumer had taken that is dead comes again soon, and what one has taken that lives does not."""

import contextlib
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest
import redis
from celery import Celery

from dispatcher.worker.celery_patches import take_leases
from tests import parts

LEASE_S = 0.5
SOON_S = 40
"""A fraction of any visibility time-out; the lease and a look at the connections take a second here."""
LONG_S = 6 * LEASE_S
CONSUMER = """
import sys, time
import kombu
from kombu.asynchronous import Hub, set_event_loop
from dispatcher.worker.celery_patches import atomic_take, take_leases

url, lease_s, how, prefix, *queues = sys.argv[1:]
options = {"visibility_timeout": 3600, "global_keyprefix": prefix}
connection = kombu.Connection(url, transport_options=options)
channel, hub = connection.channel(), Hub()
set_event_loop(hub)
connection.transport.register_with_event_loop(connection.connection, hub)
lease = take_leases.TakeLease(connection, lease_s=float(lease_s))
while how != "nameless" and not lease.taker:
    time.sleep(0.01)
atomic_take.Taking(channel, hub=hub, lease=lease)

def on_message(body, message):
    print("took", body, flush=True)
    if how == "blocks":
        time.sleep(600)

wanted = [kombu.Queue(name, channel=channel) for name in queues]
with kombu.Consumer(channel, queues=wanted, callbacks=[on_message], auto_declare=True) as consumer:
    try:
        while True:
            hub.run_once()
    except Exception:  # whatever a connection that is cut in the middle of a turn leads to in kombu
        time.sleep(600)  # Celery connects anew, and holds what it has taken meanwhile
"""


@contextlib.contextmanager
def consumer(
    url: str, log: Path, *, how: str = "holds", prefix: str = "", queues: tuple[str, ...] = ("work",)
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that takes what comes; what it took stands in the log."""
    process = parts.start([sys.executable, "-c", CONSUMER, url, str(LEASE_S), how, prefix, *queues], log=log)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait(10)


def took(log: Path) -> list[str]:
    return [line.removeprefix("took ") for line in log.read_text().splitlines() if line.startswith("took ")]


def publish(url: str, *bodies: Any, queue: str = "work", prefix: str = "", **options: Any) -> None:
    with kombu.Connection(url, transport_options={"global_keyprefix": prefix}) as connection:
        producer = connection.Producer()
        for body in bodies:
            producer.publish(body, routing_key=queue, serializer="json", declare=[kombu.Queue(queue)], **options)


def lists(server: "redis.Redis[bytes]", prefix: str = "") -> dict[str, int]:
    """The lists of queues that are not empty."""
    names = [key.decode() for key in server.scan_iter(f"{prefix}*", _type="list")]
    return {name.removeprefix(prefix): server.llen(name) for name in names}


def stays(predicate: Callable[[], bool], seconds: float) -> None:
    """It holds for so long, at each look."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert predicate()
        time.sleep(0.05)


@pytest.mark.parametrize("prefix", ["", "mine:"])
def test_what_a_killed_consumer_had_taken_is_in_its_queues_again_soon(
    valkey: parts.ValkeyDatabase, tmp_path: Path, prefix: str
) -> None:
    """Each in the list of its queue and priority, though the visibility time-out is an hour, and without the mark."""
    for queue, priority in (("a", 0), ("a", 9), ("b", 3)):
        publish(valkey.url, f"{queue}{priority}", queue=queue, prefix=prefix, priority=priority)
    with valkey.client() as server:
        before = lists(server, prefix)
        assert len(before) == 3
        with consumer(valkey.url, tmp_path / "dead", prefix=prefix, queues=("a", "b")) as dead:
            parts.eventually(lambda: len(took(tmp_path / "dead")) == 3, SOON_S)
            dead.kill()
            dead.wait(10)
        assert server.hlen(f"{prefix}unacked") == 3
        with consumer(valkey.url, tmp_path / "other", prefix=prefix, queues=("other",)):
            parts.eventually(lambda: lists(server, prefix) == before, SOON_S, what="they are in their queues")
            assert server.hlen(f"{prefix}unacked") == server.zcard(f"{prefix}unacked_index") == 0
            assert server.zcard(f"{prefix}unacked_takers") == 1
        with kombu.Connection(valkey.url, transport_options={"global_keyprefix": prefix}) as connection:
            found = [connection.SimpleQueue(name).get(timeout=5) for name in ("a", "a", "b")]
            assert sorted(one.payload for one in found) == ["a0", "a9", "b3"]
            assert all(one.headers["redelivered"] for one in found)
            assert take_leases.MARK not in repr([one.channel.qos._delivered for one in found])


@pytest.mark.parametrize("how", ["holds", "blocks", "stopped", "cut"])
def test_what_a_living_consumer_has_taken_is_left_alone(valkey: parts.ValkeyDatabase, tmp_path: Path, how: str) -> None:
    """Its event loop stands still under a long task, its process is stopped, or its connections were cut."""
    publish(valkey.url, "mine")
    with valkey.client() as server, consumer(valkey.url, tmp_path / "living", how=how) as living:
        parts.eventually(lambda: took(tmp_path / "living") == ["mine"], SOON_S)
        if how == "stopped":
            living.send_signal(signal.SIGSTOP)
        with consumer(valkey.url, tmp_path / "other", queues=("other",)):
            parts.eventually(lambda: server.zcard("unacked_takers") == 2, SOON_S)
            for _ in range(3):
                if how == "cut":
                    server.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                stays(lambda: server.hlen("unacked") == 1 and not lists(server), LONG_S / 3)
            living.send_signal(signal.SIGCONT)
            living.kill()
            living.wait(10)
            parts.eventually(lambda: lists(server) == {"work": 1}, SOON_S)


def test_a_server_that_stood_still_takes_nobody_for_dead(own_valkey: parts.Valkey, tmp_path: Path) -> None:
    """All leases have run out when it goes on, and nobody had a chance to renew his."""
    url = own_valkey.fresh().url
    publish(url, "mine")
    with consumer(url, tmp_path / "living"), consumer(url, tmp_path / "other", queues=("other",)):
        parts.eventually(lambda: took(tmp_path / "living") == ["mine"], SOON_S)
        with contextlib.closing(redis.Redis.from_url(url)) as server:
            parts.eventually(lambda: server.zcard("unacked_takers") == 2, SOON_S)
        assert own_valkey.process is not None
        own_valkey.process.send_signal(signal.SIGSTOP)
        time.sleep(LONG_S)
        own_valkey.process.send_signal(signal.SIGCONT)
        with contextlib.closing(redis.Redis.from_url(url)) as server:
            stays(lambda: server.hlen("unacked") == 1 and not lists(server), LONG_S)


def test_what_another_has_taken_since_is_not_taken_from_him(valkey: parts.ValkeyDatabase, tmp_path: Path) -> None:
    """The visibility time-out was faster, and a worker of Celery's own, which notes no name, has the message now."""
    publish(valkey.url, "twice")
    with valkey.client() as server:
        with consumer(valkey.url, tmp_path / "dead") as dead:
            parts.eventually(lambda: took(tmp_path / "dead") == ["twice"], SOON_S)
            dead.kill()
            dead.wait(10)
        options = {"visibility_timeout": 0}
        with kombu.Connection(valkey.url, transport_options=options) as connection:
            channel = connection.default_channel
            channel.qos.restore_visible(interval=1)
            held = connection.SimpleQueue("work").get(timeout=5)
            assert held.payload == "twice"
            assert take_leases.MARK.encode() in server.hgetall("unacked")[held.delivery_tag.encode()]
            with consumer(valkey.url, tmp_path / "other", queues=("other",)):
                parts.eventually(lambda: server.zcard("unacked_takers") == 1, SOON_S, what="the dead one is forgotten")
                assert server.hlen("unacked") == 1
                assert not lists(server)
            held.ack()


def test_who_gets_no_name_from_the_server_is_not_taken_for_dead(own_valkey: parts.Valkey, tmp_path: Path) -> None:
    """It takes without one, as Celery's own workers do."""
    url = own_valkey.fresh().url
    with contextlib.closing(redis.Redis.from_url(url)) as server:
        server.execute_command("ACL", "SETUSER", "less", "on", ">word", "~*", "&*", "+@all", "-client|setname")
        less = url.replace("redis://:" + own_valkey.address.password, "redis://less:word")
        publish(url, "mine")
        with consumer(less, tmp_path / "living", how="nameless"):
            parts.eventually(lambda: took(tmp_path / "living") == ["mine"], SOON_S)
            [note] = server.hgetall("unacked").values()
            assert take_leases.MARK.encode() not in note
            assert server.zcard("unacked_takers") == 0


@pytest.mark.parametrize("said", [0, -1, "10", True, float("inf"), float("nan"), None])
def test_a_lease_that_is_none_is_told(said: Any) -> None:
    with pytest.raises(ValueError, match="podyard_lease_s"):
        take_leases.lease_s({take_leases.OPTION: said})


# --- plain workers of Celery with the step

APP = """
import os, sys, time
from pathlib import Path
from celery import Celery
app = Celery("plain", broker=os.environ["BROKER"])
app.conf.broker_transport_options = {"visibility_timeout": 3600, "podyard_lease_s": 0.5}
app.steps["consumer"].add("dispatcher.worker.celery_patches.atomic_take:TakeStep")

def note(word):
    with Path(os.environ["NOTES"]).open("a") as file:
        file.write(f"{word}\\n")

@app.task
def at_once(word):
    note(word)

@app.task(acks_late=True)
def late(word):
    note(word)
    if Path(os.environ["NOTES"]).read_text().split().count(word) == 1:
        time.sleep(600)
"""


@pytest.mark.parametrize("kind", ["acks_late", "countdown", "prefetched"])
def test_a_plain_worker_that_was_killed_has_its_messages_done_by_another(
    valkey: parts.ValkeyDatabase, tmp_path: Path, kind: str
) -> None:
    """One that ran and is acknowledged late, one that waited for its time, one that waited for a process."""
    (tmp_path / "plainapp.py").write_text(textwrap.dedent(APP))
    notes = tmp_path / "notes"
    notes.touch()
    env = {"BROKER": valkey.url, "NOTES": str(notes), "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    words = [sys.executable, "-m", "celery", "-A", "plainapp", "worker", "-c", "1", "--loglevel", "INFO"]
    app = Celery("sender", broker=valkey.url, set_as_current=False)

    def worker(name: str) -> subprocess.Popen[bytes]:
        return parts.start([*words, "-n", f"{name}@test"], log=tmp_path / f"{name}.log", env=env, cwd=tmp_path)

    first = worker("first")
    try:
        with valkey.client() as server:
            parts.eventually(lambda: server.zcard("unacked_takers") == 1, 30, what="the first has a name")
            if kind == "countdown":
                app.send_task("plainapp.at_once", ["once"], countdown=12)
            else:
                app.send_task("plainapp.late", ["again"])
                if kind == "prefetched":
                    app.send_task("plainapp.at_once", ["once"])
            wanted = 2 if kind == "prefetched" else 1
            parts.eventually(lambda: server.hlen("unacked") == wanted, 30)
            if kind != "countdown":
                parts.eventually(lambda: notes.read_text().split() == ["again"], 30)
            for child in parts.psutil.Process(first.pid).children(recursive=True):
                child.kill()
            first.kill()
            first.wait(10)
    finally:
        parts.stop(first, how=signal.SIGKILL)
    second = worker("second")
    try:
        done = {"acks_late": ["again"] * 2, "countdown": ["once"], "prefetched": ["again", "again", "once"]}[kind]
        parts.eventually(lambda: sorted(notes.read_text().split()) == done, 45, what="the second does what is left")
        with valkey.client() as server:
            parts.eventually(lambda: server.hlen("unacked") == 0, 10)
    finally:
        parts.stop(second, how=signal.SIGKILL)
    app.close()
