"""Applications with result backends other than Redis, or with none: chords, and what survives a dispatcher."""

import json
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery, chord

from tests import parts
from tests.integration.shop_parts import PODS, ROOT, Shop

WAIT_S = 60

APP = """
import os
from pathlib import Path

from celery import Celery

app = Celery("filed", broker=os.environ["SHOP_BROKER_OF_APP"], backend=os.environ.get("FILED_BACKEND") or None)
app.conf.update(result_chord_retry_interval=0.2, worker_hijack_root_logger=False, broker_transport_options={
    "visibility_timeout": 5, "unacked_restore_interval": 1, "unacked_restore_throttle": 1})


def note(what):
    with (Path(os.environ["SHOP_NOTES"]) / "bodies").open("a") as notes:
        notes.write(f"{what}\\n")


@app.task(name="filed.add")
def add(x, y):
    note(f"add {x} {y}")
    return x + y


@app.task(name="filed.gather")
def gather(values):
    note(f"gather {sorted(values)}")
    return sorted(values)


@app.task(name="filed.nap")
def nap(seconds):
    import time
    note("nap")
    time.sleep(seconds)
"""


class Filed:
    """The application, its dispatcher and a client."""

    def __init__(self, shop: Shop, folder: Path, backend: str) -> None:
        (folder / "filed.py").write_text(textwrap.dedent(APP))
        python = f"{ROOT}:{folder}"
        env = {"PYTHONPATH": python, "SHOP_NOTES": str(shop.notes), "SHOP_BROKER_OF_APP": "memory://"}
        self.shop = shop
        self.env = {
            "PYTHONPATH": python,
            "SHOP_BROKER_OF_APP": shop.broker,
            "FILED_BACKEND": backend,
            "PODYARD_QUEUES__KUBERNETES__ENV": json.dumps(env),
        }
        self.client = Celery("client", broker=shop.broker, backend=backend or None, set_as_current=False)
        shop.dispatcher(**self.env)

    def signature(self, task: str, *args: object) -> object:
        return self.client.signature(f"filed.{task}", args=args, queue=PODS)

    @property
    def bodies(self) -> list[str]:
        """What the bodies have noted."""
        return self.shop.noted("bodies")


@pytest.fixture
def shop(
    tmp_path: Path, valkey: parts.ValkeyDatabase, local_cluster: parts.LocalCluster, deployment: str
) -> Iterator[Shop]:
    made = Shop(
        folder=tmp_path, broker=valkey.url, kubeconfig=local_cluster.kubeconfig, deployment=deployment, app="filed:app"
    )
    yield made
    made.stop()


@pytest.mark.parametrize("kind", ["file", "database"])
def test_a_chord_ends_with_a_backend_that_has_no_chords_of_its_own(shop: Shop, tmp_path: Path, kind: str) -> None:
    """`celery.chord_unlock` is sent to the body's queue; the dispatcher runs it, no pod without credentials."""
    (tmp_path / "results").mkdir()
    backend = f"file://{tmp_path / 'results'}" if kind == "file" else f"db+sqlite:///{tmp_path / 'results.db'}"
    filed = Filed(shop, tmp_path, backend)

    sent = chord([filed.signature("add", 1, 1), filed.signature("add", 2, 2)], filed.signature("gather"))()

    assert sent.get(timeout=WAIT_S) == [2, 4]
    assert sorted(filed.bodies) == ["add 1 1", "add 2 2", "gather [2, 4]"]


def test_without_a_result_backend_a_killed_dispatcher_goes_on(shop: Shop, tmp_path: Path) -> None:
    """A pod ends while no dispatcher lives: its link is sent by the next one, and later messages are launched."""
    filed = Filed(shop, tmp_path, "")
    napping = filed.signature("nap", 2)
    napping.link(filed.signature("gather", [3]).set(immutable=True))  # type: ignore[attr-defined]
    napping.apply_async(ignore_result=True)  # type: ignore[attr-defined]
    parts.eventually(lambda: filed.bodies == ["nap"], WAIT_S)
    process = shop.processes.pop()
    process.kill()
    process.wait(10)
    ended_at = time.monotonic() + 3
    parts.eventually(lambda: time.monotonic() > ended_at, 10, what="the pod has ended while nobody looks")

    shop.dispatcher(**filed.env)
    filed.signature("add", 1, 2).apply_async()  # type: ignore[attr-defined]

    parts.eventually(
        lambda: sorted(filed.bodies) == ["add 1 2", "gather [3]", "nap"], WAIT_S, what="all bodies ran once"
    )
