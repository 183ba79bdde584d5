"""PodyardExecutor: Airflow's Celery executor, whose tasks of some queues run in pods.

Tasks of a pod queue (`rules`) are sent with what a pod needs to a dispatcher, which consumes that queue; all others go
the way of the Celery provider. What is sent, running and finished is counted by the provider's own code: its buffers
are never written here, since their shape changes between releases. Runs in the scheduler, and in the API server for
logs; it speaks to broker and result backend alone, never to Kubernetes.
"""

import traceback
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from airflow.configuration import conf
from airflow.exceptions import AirflowConfigException
from airflow.providers.celery.executors import celery_executor_utils
from airflow.providers.celery.executors.celery_executor import CeleryExecutor
from airflow.providers.common.compat.sdk import AirflowTaskTimeout
from celery import states
from kombu import exceptions

from dispatcher import errors
from dispatcher.protocol.message import HEADER
from routing import commands
from routing.airflow import failure, rules, tasklog, workload
from routing.config import settings

Tuple = tuple[Any, ...]
"""(key, workload, queue, …), as the provider hands them on."""

_AWAY = (exceptions.OperationalError, OSError, AirflowTaskTimeout)
"""Broker or result backend cannot be reached: nothing is wrong with the task."""
_RETRY = {"max_retries": 1, "interval_start": 0, "interval_step": 0}
"""One more try at once, for a connection that has died unnoticed; then the next heartbeat sends."""
_TELL_EVERY = 60
"""Of troubles that stay, one line a minute at Airflow's usual heartbeat of a second."""


class PodyardExecutor(CeleryExecutor):
    """Routes each task by its queue: to Celery workers, or through a dispatcher to a pod of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        try:
            self._rules = rules.load(kubernetes_queue=kubernetes_queue())
        except settings.SettingsError as error:
            raise AirflowConfigException(f"PodyardExecutor: {error}") from error
        self._ids: dict[Any, str] = {}
        """The Celery id of each workload that could not be sent yet, so that it keeps it."""
        self._warned: set[str] = set()
        """Queues of which it was said that only a pattern matches them."""
        self._troubles = 0
        """Syncs in a row that failed."""
        self._logs = tasklog.TaskLogs(self.celery_app, self._rules)

    def start(self) -> None:
        """Begins as the provider's executor does, and says what in the rules will not work as written."""
        super().start()
        queues = ", ".join(self._rules.router.names("kubernetes"))
        self.log.info("PodyardExecutor: tasks of the queues %s run in pods, all others in Celery workers", queues)
        for line in rules.too_long(self._rules, queued_timeout_s=queued_timeout_s()):
            self.log.warning("PodyardExecutor: %s", line)

    # How the provider sends. The second name is that of its releases before 3.20.

    def _send_workloads_to_celery(self, workload_tuples_to_send: Sequence[Tuple]) -> list[Tuple]:
        return self._send_each_to_its_side(workload_tuples_to_send, super()._send_workloads_to_celery)

    def _send_tasks_to_celery(self, task_tuples_to_send: Sequence[Tuple]) -> list[Tuple]:
        return self._send_each_to_its_side(task_tuples_to_send, super()._send_tasks_to_celery)

    def _send_each_to_its_side(
        self, tuples: Sequence[Tuple], send_to_workers: Callable[[Sequence[Tuple]], Sequence[Tuple]]
    ) -> list[Tuple]:
        """(key, arguments, result) of each that was sent, which is what the provider expects.

        A key that is missing stays queued, and the next heartbeat sends it again.
        """
        for_pods = [entry for entry in tuples if self._rules.is_pod_queue(entry[2])]
        for_workers = [entry for entry in tuples if not self._rules.is_pod_queue(entry[2])]
        sent = list(send_to_workers(for_workers)) if for_workers else []
        for entry in for_pods:
            key, task, queue = entry[:3]
            self._warn_of_pattern(queue)
            try:
                result = self._send_to_dispatcher(key, task, queue)
            except _AWAY as error:
                self.log.warning("PodyardExecutor: %s stays queued, it could not be sent: %s", key, error or "timeout")
                break  # the others would wait for the same
            except Exception as error:  # whatever a workload does must fail that one task alone
                text = f"{type(error).__name__}: {error}"
                # What the provider's own senders return for such a one: its code then fails the task.
                result = celery_executor_utils.ExceptionWithTraceback(error, f"{text}\n{traceback.format_exc()}")
            self._ids.pop(key, None)
            sent.append((key, task, result))
        return sent

    def _send_to_dispatcher(self, key: Any, task: Any, queue: str) -> Any:
        """Puts one workload into its queue; gives what the provider asks about it. Raises what keeps it from that.

        What nobody can launch fails here, and is stored as a dispatcher would: one way for all failures.
        """
        chosen = getattr(getattr(task, "ti", None), "external_executor_id", None)
        # The same id when it is sent again: the broker may have taken the first
        # one, and its pod is then known by its name.
        task_id = chosen or self._ids.setdefault(key, str(uuid.uuid4()))
        # The provider's own bound: a broker that hangs must not hold up the scheduler's loop.
        with celery_executor_utils.timeout(seconds=celery_executor_utils.OPERATION_TIMEOUT):
            try:
                message = workload.build(task)
            except errors.InvalidOverride as error:
                text = f'executor_config["pod_override"]: {str(error).removeprefix("pod override: ")}'
                details = {"reason": "InvalidOverride", "cause": "application", "what_to_do": "correct the DAG"}
                # What it stored is read back by `sync` like any failure: the provider's buffers stay as they were.
                self.celery_app.backend.store_result(task_id, errors.PodFailed(text, details), states.FAILURE)
            else:
                self._publish(message, task_id=task_id, queue=queue)
        return self.celery_app.AsyncResult(task_id)

    def _publish(self, message: workload.WorkloadMessage, *, task_id: str, queue: str) -> None:
        """As `send_task`, without a subscription for each result, and without the token in what monitors show."""
        amqp = self.celery_app.amqp
        with self.celery_app.producer_or_acquire() as producer, producer.connection._reraise_as_library_errors():  # noqa: SLF001 - as Celery's own send_task
            amqp.send_task_message(
                producer,
                workload.TASK_NAME,
                amqp.as_task_v2(
                    task_id,
                    workload.TASK_NAME,
                    args=(message.body,),
                    # A pod that starts with a token that has expired would be refused by
                    # the API server after all its waiting.
                    expires=message.expires_at,
                    # Celery would put the body, with the token, into the header that Flower and events show.
                    argsrepr=f"({'.'.join(message.pod['name'])!r},)",
                ),
                queue=queue,
                headers={HEADER: message.pod},
                retry=True,
                retry_policy=_RETRY,
            )

    def _warn_of_pattern(self, queue: str) -> None:
        pattern = self._rules.pattern_of(queue)
        if pattern is not None and queue not in self._warned:
            self._warned.add(queue)
            self.log.warning(
                "PodyardExecutor: only the pattern %r matches the queue %r: its tasks wait until a dispatcher consumes"
                " it by name (%s)",
                pattern,
                queue,
                commands.plain("dispatcher", "--airflow", "--queues", queue),
            )

    # What comes back.

    def sync(self) -> None:
        """Asks for results as the provider does; a result backend that is away, or holds nonsense, stops nobody."""
        try:
            super().sync()
        except Exception as error:  # the scheduler would die of any
            if self._troubles % _TELL_EVERY == 0:
                self.log.warning("PodyardExecutor: results could not be read, asked again: %r", error)
            self._troubles += 1
        else:
            self._troubles = 0

    def update_task_state(self, key: Any, state: str, info: Any) -> None:
        """Reports as the provider does, with the reason of a failure.

        A token that expired in the queue is no failure of the task: nothing is reported then, and Airflow itself
        queues it again when it finds it stuck.
        """
        if state in (states.FAILURE, states.REVOKED):
            found = self._failure_of(key)
            if found is not None and found.is_expired:
                self.log.debug("PodyardExecutor: the token of %s expired in the queue; Airflow queues it again", key)
                return
            info = info or (found and f"{found.text}{found.remedy and f'; to do: {found.remedy}'}")
        super().update_task_state(key, state, info)

    def _failure_of(self, key: Any) -> failure.Failure | None:
        result = self._sent().get(key)
        if result is None:
            return None
        try:
            return failure.read(self.celery_app.backend, result.task_id)
        except Exception as error:  # a reason is for people: without it the failure is reported, too
            self.log.warning("PodyardExecutor: the reason of a failure could not be read: %r", error)
            return None

    def _sent(self) -> dict[Any, Any]:
        """Key -> what the provider asks about it; `tasks` in its releases before 3.20."""
        sent: dict[Any, Any] = self.workloads if hasattr(self, "workloads") else self.tasks
        return sent

    def revoke_task(self, *, ti: Any) -> None:
        """Takes a task back, and ends its pod, where there is one that waits. Raises nothing."""
        key = getattr(ti, "key", None)
        # Read before super(), which forgets it.
        result = self._sent().get(key)
        self._ids.pop(key, None)
        if self._rules.is_pod_queue(ti.queue):
            task_id = result.task_id if result is not None else ti.external_executor_id
            try:
                if task_id:
                    self.celery_app.control.revoke(task_id, terminate=True)
            # Airflow calls this in its scheduler's loop, and what it goes on with must not depend on the broker.
            except Exception:
                self.log.exception("PodyardExecutor: the pod of %s could not be revoked", key)
        super().revoke_task(ti=ti)

    # Logs, in the API server.

    def get_task_log(self, ti: Any, try_number: int) -> tuple[list[str], list[str]]:
        """Where the log of a running pod comes from, and its lines; empty for a task of a Celery worker."""
        if not self._rules.is_pod_queue(ti.queue):
            return super().get_task_log(ti, try_number)  # type: ignore[no-any-return]
        return self._logs.read(ti)


def kubernetes_queue() -> str | None:
    """The queue that `[celery_kubernetes_executor] kubernetes_queue` names."""
    queue: str | None = conf.get("celery_kubernetes_executor", "kubernetes_queue", fallback=None)
    return queue


def queued_timeout_s() -> float:
    """How long Airflow leaves a task queued before it takes it back."""
    return float(conf.getfloat("scheduler", "task_queued_timeout"))
