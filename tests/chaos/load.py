"""The load: runs of the storm's DAGs and plain Celery messages, a few at a time, and what was accepted of it."""

import contextlib
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

from celery import Celery
from kombu import exceptions as kombu_exceptions

from routing.merging import backend
from routing.store import errors
from routing.store.store import Store
from tests.chaos.installation import Installation

DAGS = {"fan": 3, "chain": 3, "again": 2, "slow": 2, "pods": 2}
"""DAG -> how often, in proportion."""
RUNS_AT_ONCE = 12
PLAIN_AT_ONCE = 3


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
        self.app = Celery("client", broker=settings.broker.url, backend=settings.broker.url, set_as_current=False)
        options = {"socket_timeout": 3, "socket_connect_timeout": 3}
        self.app.conf.update(accept_content=["json"], broker_transport_options=options, redis_socket_timeout=3)

    def top_up(self, *, open_runs: int, open_plain: int) -> None:
        """Submit what is missing. What is refused while a part is away was not accepted, and is not ours to judge."""
        try:
            for _ in range(RUNS_AT_ONCE - open_runs):
                self._submit_run()
            for _ in range(PLAIN_AT_ONCE - open_plain):
                self._submit_plain(str(uuid4()))
        except (errors.RecordError, kombu_exceptions.KombuError, OSError):
            self.refused += 1

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
        dag_id = self.dice.choices(list(DAGS), weights=list(DAGS.values()))[0]
        run_id = f"storm-{uuid4().hex[:12]}"
        self.store.create_run(dag_id, run_id=run_id, at=datetime.now(UTC))
        self.runs.append((dag_id, run_id))
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
