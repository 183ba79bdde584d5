"""The dispatcher as a Celery worker: control commands, autoscale, shutdown, events with the pods' times."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from tests import parts
from tests.integration.shop_parts import SHOP, Shop
from tests.integration.yard_parts import pods_of

WAIT_S = 40


@pytest.fixture
def shop(tmp_path, valkey: parts.ValkeyDatabase, local_cluster: parts.LocalCluster, deployment: str) -> Iterator[Shop]:
    """The shop, with nothing started."""
    shop = Shop(folder=tmp_path, broker=valkey.url, kubeconfig=local_cluster.kubeconfig, deployment=deployment)
    yield shop
    shop.stop()


def pool_of(shop: Shop) -> dict[str, Any]:
    """The pool's part of `inspect stats`, which is Flower's page of a worker."""
    node = shop.node("dispatcher")
    return (shop.inspect("dispatcher").stats() or {})[node]["pool"]


def done(results: list[Any]) -> bool:
    return all(result.state == "SUCCESS" for result in results)


def test_grow_and_shrink_move_the_limit_and_stats_say_who_waits(shop: Shop) -> None:
    """`control pool_grow`, `pool_shrink`: pods in flight, limit and waiting count, as Flower shows them."""
    shop.dispatcher("-c", "2")
    naps = [shop.send("nap", 3) for _ in range(4)]
    parts.eventually(lambda: (pool_of(shop)["pods-in-flight"], pool_of(shop)["waiting"]) == (2, 2), WAIT_S)

    shop.client.control.pool_grow(1, destination=[shop.node("dispatcher")])
    parts.eventually(lambda: pool_of(shop)["max-concurrency"] == 3, WAIT_S)
    parts.eventually(lambda: done(naps), WAIT_S)
    shop.client.control.pool_shrink(2, destination=[shop.node("dispatcher")])

    parts.eventually(lambda: pool_of(shop)["max-concurrency"] == 1, WAIT_S)
    assert pool_of(shop)["waiting"] == 0


def test_autoscale_follows_the_work_and_never_passes_its_maximum(shop: Shop) -> None:
    """`--autoscale=3,1`: Celery's autoscaler moves our window."""
    shop.dispatcher("--autoscale", "3,1")
    naps = [shop.send("nap", 1) for _ in range(6)]
    peak = 0

    def all_done() -> bool:
        nonlocal peak
        alive = [pod for pod in pods_of(shop).values() if pod["status"]["phase"] in ("Pending", "Running")]
        peak = max(peak, len(alive))
        return done(naps)

    parts.eventually(all_done, WAIT_S, every_s=0.05)
    assert 1 < peak <= 3


def test_shutdown_lets_go_of_the_pods_and_the_next_one_takes_them(shop: Shop) -> None:
    """`control shutdown` while a pod runs and another message waits: both end, each ran once."""
    process = shop.dispatcher("-c", "1")
    running, waiting = shop.send("nap", 4, "running"), shop.send("nap", 0, "waiting")
    parts.eventually(lambda: shop.noted("running"), WAIT_S)

    asked = time.monotonic()
    shop.client.control.shutdown(destination=[shop.node("dispatcher")])
    process.wait(15)
    assert time.monotonic() - asked < 10
    assert running.state == "PENDING"
    shop.dispatcher("-c", "1")

    parts.eventually(lambda: done([running, waiting]), WAIT_S)
    assert (len(shop.noted("running")), len(shop.noted("waiting"))) == (1, 1)


def test_what_expires_or_is_revoked_in_the_waiting_line_never_runs(shop: Shop) -> None:
    """Its message was received in time; its pod's turn came too late."""
    shop.dispatcher("-c", "1")
    first = shop.send("nap", 3, "first")
    parts.eventually(lambda: shop.noted("first"), WAIT_S)
    late, revoked = shop.send("nap", 0, "late", expires=1), shop.send("nap", 0, "revoked")
    parts.eventually(lambda: pool_of(shop)["waiting"] == 2, WAIT_S)
    shop.client.control.revoke(revoked.id)

    parts.eventually(lambda: (late.state, revoked.state, first.state) == ("REVOKED", "REVOKED", "SUCCESS"), WAIT_S)
    assert (shop.noted("late"), shop.noted("revoked")) == ([], [])


def test_priorities_are_the_brokers(shop: Shop) -> None:
    """With Celery's Redis broker 0 goes first; the dispatcher takes what it is given."""
    order = [shop.send("nap", 0, f"priority-{priority}", priority=priority) for priority in (9, 6, 3, 0)]
    shop.dispatcher("-c", "1", "--prefetch-multiplier", "1")
    parts.eventually(lambda: done(order), WAIT_S)

    ran = sorted(shop.notes.glob("priority-*"), key=lambda file: file.stat().st_mtime_ns)
    assert [file.name for file in ran] == ["priority-0", "priority-3", "priority-6", "priority-9"]


def test_events_carry_the_pods_times(shop: Shop) -> None:
    """Started when the container started, succeeded when it ended, with the body's runtime."""
    seen: dict[str, dict[str, Any]] = {}
    take = {"*": lambda event: seen.setdefault(f"{event['type']} {event.get('uuid')}", event)}
    with ThreadPoolExecutor(1) as thread, shop.client.connection_for_read() as connection:
        receiver = shop.client.events.Receiver(connection, handlers=take)
        thread.submit(receiver.capture, limit=None, timeout=None, wakeup=False)
        try:
            shop.dispatcher()
            parts.eventually(lambda: any(key.startswith("worker-") for key in seen), WAIT_S)
            sent = shop.send("nap", 2)
            parts.eventually(lambda: f"task-succeeded {sent.id}" in seen, WAIT_S)
        finally:
            receiver.should_stop = True
    received, started, ended = (seen[f"task-{kind} {sent.id}"] for kind in ("received", "started", "succeeded"))

    assert started["pod"].startswith("tests-apps-behaviours-nap-")
    assert 2 <= ended["runtime"] < 4
    assert received["timestamp"] <= started["timestamp"] <= ended["timestamp"] - 1.5
    assert ended["timestamp"] <= datetime.now(UTC).timestamp()


def test_the_sample_shop_runs_as_its_readme_says(shop: Shop) -> None:
    """`podyard dispatcher --app shop:app` without a settings file; default queue and routes are the shop's own."""
    shop.app = "shop:app"
    shop.podyard(PODYARD_QUEUES__KUBERNETES__ENV=shop.pods_env())
    shop.worker()
    readme = (SHOP / "README.md").read_text()
    lines = readme.partition("```python\n")[2].partition("```")[0].splitlines()
    code = [f"print({line.partition('  #')[0]})" if ".get()" in line else line for line in lines]

    answer = subprocess.run(
        [sys.executable, "-c", "\n".join(code)],
        cwd=SHOP,
        env={**os.environ, "SHOP_BROKER": shop.broker},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )

    assert answer.stdout.splitlines() == ["Invoice for Ada: 7.00 €", "Invoice for somebody: 20.00 €", "0.512"], answer
