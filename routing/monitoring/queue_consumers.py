"""Lets the worker and the dispatcher of one machine consume every queue that a DAG uses.

They are started with the queues that rules name; a DAG may use any other. Level-triggered: it compares what DAGs use
with what each process was asked to consume, and sends the difference through Celery's own `add_consumer`.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from routing import router
from routing.monitoring import health
from routing.store import rows

EVERY_S = 1.0
REPLY_TIMEOUT_S = 2.0


class Consumers:
    """What each process was asked to consume so far, by its pid: a new process is asked for everything again."""

    def __init__(self, app: Any, routes: router.Router) -> None:
        """`app` is a Celery app that reaches the broker."""
        self._app = app
        self._routes = routes
        self._known = {*routes.names("celery"), *routes.names("kubernetes")}
        if routes.route(None).side == "celery":
            self._known.add(router.DEFAULT_QUEUE)
        self._told: set[tuple[int, str]] = set()
        self._looked_mono_s = 0.0

    def look(self, dags: Iterable[rows.DagRow], pids: Mapping[str, int]) -> list[str]:
        """Tell `worker` and `dispatcher` what they lack; gives one line for each queue that is new to one of them."""
        said = []
        for queue in sorted(queues_of(dags) - self._known):
            name = "dispatcher" if self._routes.route(queue).side == "kubernetes" else "worker"
            pid = pids.get(name)
            # By pid: a process that was started again knows only the queues of its command line.
            if pid is not None and (pid, queue) not in self._told and self._tell(name, queue):
                self._told.add((pid, queue))
                said.append(f"{name} consumes the queue {queue!r}")
        return said

    def is_due(self) -> bool:
        """Whether it is time to look again; says so once per interval."""
        now_mono_s = time.monotonic()
        if now_mono_s - self._looked_mono_s < EVERY_S:
            return False
        self._looked_mono_s = now_mono_s
        return True

    def _tell(self, name: str, queue: str) -> bool:
        """Whether the process of that node name has confirmed that it consumes the queue."""
        arguments = {"queue": queue, "exchange": None, "exchange_type": "direct", "routing_key": None}
        answer = health.ask(self._app, "add_consumer", name, arguments=arguments, timeout_s=REPLY_TIMEOUT_S)
        return answer is not None and "ok" in answer


def queues_of(dags: Iterable[rows.DagRow]) -> set[str]:
    """The queues that tasks of these DAGs go to."""
    tasks = (task for dag in dags if dag.is_active for task in dag.structure.get("tasks", ()))
    return {task.get("queue") or router.DEFAULT_QUEUE for task in tasks}
