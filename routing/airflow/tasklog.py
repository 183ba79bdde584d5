"""Task logs of pod queues, as Airflow's API server shows them: running, finished, waiting and never launched.

`PodyardExecutor.get_task_log` reads those of running tasks here, `remote.PodyardTaskLog` all others. A log that cannot
be had is never an error of the page: a line says why it is missing.
"""

from collections.abc import Iterator
from typing import Any

from routing.airflow import dispatcherlogs, failure, rules

NOT_SENT = "this try was not sent to a dispatcher, or failed at once: Airflow's event log says why (state mismatch)"
"""Before 3.2.2 Airflow does not note the id of a task that fails in the heartbeat in which it was sent."""
TRIES = 3
"""A server that was away leaves dead connections in the pools for broker and results; each is noticed by its use."""
EPILOGUE = "-- "
"""How lines begin that the dispatcher adds behind the log of a pod that failed."""
MARK = "podyard: "
"""How lines begin that are not the task's own."""


class TaskLogs:
    """Reads logs for one Celery app."""

    def __init__(self, app: Any, known: rules.Rules) -> None:
        self._app = app
        self._rules = known
        self._dispatchers = dispatcherlogs.DispatcherLogs(app)

    def has(self, ti: Any) -> bool:
        """Whether the log of a task instance is a dispatcher's affair."""
        return self._rules.is_pod_queue(ti.queue)

    def read(self, ti: Any) -> tuple[list[str], list[str]]:
        """Where the log of a task instance's try comes from, and its lines. Never both empty, never raises."""
        task_id = ti.external_executor_id
        if not task_id:
            return ["podyard"], [f"{MARK}{NOT_SENT}"]
        trouble = ""
        for _ in range(TRIES):
            try:
                return self._read(task_id)
            except Exception as error:  # a page without a log is better than none
                trouble = f"{type(error).__name__}: {error}"
        return ["podyard"], [f"{MARK}the log could not be read: {trouble}"]

    def _read(self, task_id: str) -> tuple[list[str], list[str]]:
        log = self._dispatchers.read(task_id)
        reasons = list(self._reasons(task_id))
        if log is None and not reasons:
            return ["podyard"], [self._nothing()]
        if log is not None:
            lines = [failure.in_airflow(line) if line.startswith(EPILOGUE) else line for line in log.lines]
            # The dispatcher writes the reason behind the log of a pod, too: it is shown once.
            missing = [reason for reason in reasons if not any(reason.removeprefix(MARK) in line for line in lines)]
            return [log.source], [*lines, *missing]
        return ["podyard"], reasons

    def _nothing(self) -> str:
        """Why there is neither a log nor a reason: nobody to ask, or nobody who knows."""
        if not self._dispatchers.dispatchers():
            return f"{MARK}no dispatcher answers, pods are not launched: start one with `{rules.START}`"
        return f"{MARK}no dispatcher that answers has a log of this try"

    def _reasons(self, task_id: str) -> Iterator[str]:
        """Why it failed, where the result backend says so: also of pods that never were."""
        found = failure.read(self._app.backend, task_id)
        if found is not None:
            yield f"{MARK}{found.text}"
            if found.remedy:
                yield f"{MARK}to do: {found.remedy}"
