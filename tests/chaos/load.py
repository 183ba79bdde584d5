"""The load: runs of the storm's DAGs and plain Celery messages, a few at a time, and what was accepted of it."""

import contextlib
import random
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from celery import Celery, chain, chord
from celery.backends.redis import RedisBackend
from kombu import exceptions as kombu_exceptions

from routing.results import backend
from routing.store import store_errors
from routing.store.store import Store
from tests.chaos.installation import Installation

DAGS = {"fan": 3, "chain": 3, "again": 2, "slow": 2, "pods": 2, "swift": 1}
"""DAG -> how often, in proportion."""
RUNS_AT_ONCE = 12
PLAIN_AT_ONCE = 3
UNWATCHED = "tests.chaos.load:Unwatched+"
RETRY_NOT = {"retry_policy": {"max_retries": 0}}


class Unwatched(RedisBackend):
    """Celery's result backend for a client that waits for no result: it subscribes to nothing, so that nothing breaks
    when a result object is collected while the server is away."""

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """No subscription."""

    def remove_pending_result(self, result: Any) -> Any:
        """None to take back."""
        return result


@dataclass(kw_only=True)
class Load:
    """Keeps so many runs and messages going; remembers what was accepted."""

    installation: Installation
    dice: random.Random
    store: Store = field(init=False)
    app: Celery = field(init=False)
    runs: list[tuple[str, str]] = field(default_factory=list)
    """(DAG, run id) that the record took."""
    plain: dict[str, float] = field(default_factory=dict)
    """Ids of plain messages that the broker took, and when."""
    offered: set[str] = field(default_factory=set)
    """Those of which the client saw a failure: the broker may have them all the same."""
    refused: int = 0

    def __post_init__(self) -> None:
        settings = self.installation.settings
        self.store = Store.open(settings.database.url)
        self.app = Celery(
            "client", broker=settings.broker.url, backend=UNWATCHED + settings.results.url, set_as_current=False
        )
        options = {"socket_timeout": 3, "socket_connect_timeout": 3}
        self.app.conf.update(accept_content=["json"], broker_transport_options=options, redis_socket_timeout=3)

    def top_up(self, *, open_runs: int, open_plain: int) -> None:
        """Submit what is missing. What is refused while a part is away was not accepted, and is not ours to judge."""
        try:
            for _ in range(RUNS_AT_ONCE - open_runs):
                self._submit_run()
            for _ in range(PLAIN_AT_ONCE - open_plain):
                self._submit_plain(str(uuid4()))
        except (store_errors.RecordError, kombu_exceptions.KombuError, OSError):
            self.refused += 1

    def keep(self, wanted: Mapping[str, int], *, is_woken: bool) -> None:
        """Keep so many runs of each DAG open."""
        with self.installation.sql() as ask:
            counts = ask(
                "SELECT dag_id, count(*) AS n FROM dag_run WHERE state IN ('queued', 'running') GROUP BY dag_id"
            )
        now = {row["dag_id"]: row["n"] for row in counts}
        for dag_id, count in wanted.items():
            for _ in range(count - now.get(dag_id, 0)):
                self._create_run(dag_id, is_woken=is_woken)

    def send_again(self, known: set[str], *, older_than_s: float) -> int:
        """A client's own patience: plain messages of which nobody knows are sent again, under the same id.

        Celery's transport for Redis hands a message out before it notes it as not acknowledged; one that is on its way
        when a worker is killed is gone. Tasks of DAGs are resent by the scheduler; who sends plain messages does it.
        """
        silent = [one for one, at in self.plain.items() if one not in known and time.time() - at > older_than_s]
        for task_id in silent:
            with contextlib.suppress(kombu_exceptions.KombuError, OSError):
                self._submit_plain(task_id)
        return len(silent)

    def _submit_run(self) -> None:
        self._create_run(self.dice.choices(list(DAGS), weights=list(DAGS.values()))[0])

    def _create_run(self, dag_id: str, *, is_woken: bool = True) -> None:
        run_id = f"storm-{uuid4().hex[:12]}"
        self.store.create_run(dag_id, run_id=run_id, at=datetime.now(UTC))
        self.runs.append((dag_id, run_id))
        if is_woken:
            with contextlib.suppress(*backend.UNAVAILABLE):
                self.app.backend.client.rpush("podyard:chaos:reports", '{"kind":"wake"}')

    def _submit_plain(self, task_id: str) -> None:
        script = (
            f'note() {{ echo "$1 {task_id} $$ $(date +%s.%N)" >> {self.installation.trace}; }}; '
            "note start; sleep 0.5; note end"
        )
        kwargs = {"image": "busybox:1.36", "cmds": ["sh", "-c"], "arguments": [script]}
        self.offered.add(task_id)
        self.app.send_task(
            "dispatcher.pod", kwargs=kwargs, task_id=task_id, queue="kubernetes", retry=False, ignore_result=False
        )
        self.plain[task_id] = time.time()

    def close(self) -> None:
        self.store.close()
        self.app.close()


@dataclass(kw_only=True)
class PlainLoad:
    """Chains, chords and single tasks of the Celery application beside the DAGs, over its workers and its pods."""

    installation: Installation
    app: Celery = field(init=False)
    plain: dict[str, float] = field(default_factory=dict)
    offered: set[str] = field(default_factory=set)
    refused: int = 0

    def __post_init__(self) -> None:
        env = self.installation.plain_env
        self.app = Celery(
            "plain", broker=env["PLAIN_BROKER"], backend=UNWATCHED + env["PLAIN_RESULTS"], set_as_current=False
        )
        options = {"socket_timeout": 3, "socket_connect_timeout": 3}
        self.app.conf.update(accept_content=["json"], broker_transport_options=options, redis_socket_timeout=3)
        self.app.conf.update(task_publish_retry=False, result_backend_transport_options=RETRY_NOT)

    def top_up(self, known: Collection[str]) -> None:
        """Submit again of each kind of which nothing is under way. As in `Load`, what is refused does not count."""
        for make in (self._single_task, self._single_pod, self._chain, self._chord):
            open_ones = [one for one in self._of.get(make.__name__, ()) if one in self.plain and one not in known]
            if not open_ones:
                self._send(make.__name__, *make())

    _of: dict[str, list[str]] = field(default_factory=dict)
    """Kind -> ids of the last that was sent."""
    _in_pods: set[str] = field(default_factory=set)

    def _send(self, kind: str, work: Any, ids: list[str]) -> None:
        self.offered.update(ids)
        try:
            work.apply_async()
        except (*backend.UNAVAILABLE, kombu_exceptions.KombuError):
            self.refused += 1
        else:
            self.plain.update(dict.fromkeys(ids, time.time()))
            self._of[kind] = ids

    def _step(self, queue: str, *args: Any, name: str = "step") -> Any:
        task_id = str(uuid4())
        if queue == "kubernetes":
            self._in_pods.add(task_id)
        return self.app.signature(f"tests.chaos.plainapp.{name}", args=args, queue=queue, app=self.app, task_id=task_id)

    def _single_task(self) -> tuple[Any, list[str]]:
        step = self._step("plain", 1)
        return step, [step.id]

    def _single_pod(self) -> tuple[Any, list[str]]:
        step = self._step("kubernetes", 1)
        return step, [step.id]

    def _chain(self) -> tuple[Any, list[str]]:
        steps = [self._step("plain", 0), *(self._step(queue) for queue in ("kubernetes", "plain", "kubernetes"))]
        return chain(*steps, app=self.app), [step.id for step in steps]

    def _chord(self) -> tuple[Any, list[str]]:
        steps = [self._step(queue, number) for number, queue in enumerate(("plain", "kubernetes") * 2)]
        last = self._step("plain", name="total")
        return chord(steps, last, app=self.app), [step.id for step in (*steps, last)]

    def kind_of(self, task_id: str) -> str:
        """`plain celery` or `plain pods`."""
        return f"plain {'pods' if task_id in self._in_pods else 'celery'}"

    def close(self) -> None:
        self.app.close()
