"""KubernetesPool: a Celery pool whose slots are pods. The value of CELERY_CUSTOM_WORKER_POOL.

Celery's hub thread calls it; a second thread speaks to the API server (`bridge`, `controller`). Acknowledgement, ETA,
rate limits, retries, revocation, events and Flower stay Celery's own code. This module only translates: a request
becomes an attempt, an outcome becomes the callbacks that a request expects. What it never does: block the hub.
Semi-internal Celery 5.7 behaviour that it relies on is listed in docs/adr/0001-dispatcher-is-a-celery-pool.md.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import states
from celery.concurrency.base import BasePool
from celery.exceptions import Ignore, Reject, WorkerLostError
from celery.worker import state as worker_state

from dispatcher import errors, options
from dispatcher.attempts import status_store
from dispatcher.attempts.attempt import Attempt, Callbacks
from dispatcher.attempts.status_store import PodRow
from dispatcher.finishing import result_reader
from dispatcher.launching import claim_client
from dispatcher.manifests import builder, pod_task
from dispatcher.protocol import outcome
from dispatcher.protocol.message import Message
from dispatcher.watching import controller
from dispatcher.worker import adoption, app_config, health_checks, log_command, stall_detector, task_events, undecodable
from dispatcher.worker.bridge import Bridge
from dispatcher.worker.celery_patches import ack_batching, broker_loss, call_timeouts
from dispatcher.worker.process_health import Ask, Vitals
from dispatcher.worker.replay import Replay, Replayed, raised
from dispatcher.worker.result_outbox import Unstored
from dispatcher.worker.stall_detector import Moment

logger = logging.getLogger(__name__)

TURN_S = 2.0
"""How often the hub says that it turns."""
SERVER_ANSWERS_S = 10.0
PING_S = 2.0
"""How long other dispatchers have to answer before they are taken for silent."""
_HARD = False
"""Celery's first argument of a time-out callback: is it the soft limit?"""


class KubernetesPool(BasePool):
    """One pod per task. `limit` (`--concurrency`) bounds the pods in flight over all queues."""

    uses_semaphore = False
    task_join_will_block = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bridge = Bridge(name="podyard-cluster")
        self._hub: Any = None
        self._consumer: Any = None
        self._adoption: adoption.Adoption | None = None
        self.unstored = Unstored(bridge=self._bridge, probe=lambda: health_checks.of_results(self.app))
        """What waits for the result backend."""
        self._standstill = stall_detector.Standstill(_moment())
        self._turning: Any = None
        """The timer by which the hub says that it turns."""
        self._by_pod: dict[str, Attempt] = {}
        """Pod name -> attempt, on the hub's side: Celery's revocation knows the pod as the process id."""
        self.app.steps["consumer"].update(
            {adoption.step_for(self), broker_loss.SurviveBrokerLoss, ack_batching.FewerTrips}
        )

    def on_start(self) -> None:
        """Starts the thread that speaks to the API server."""
        self._nodename = str(self.options["initargs"][1])
        self._options = app_config.from_app(self.app)
        call_timeouts.shorten(self.app)
        pod_task.register(self.app)
        self._replay = Replay(self.app, hostname=self._nodename)
        self._lifecycle = controller.Lifecycle(
            options=self._options,
            owner=self._nodename,
            limit=self.limit,
            hub=_Passed(self._bridge, self),
            is_revoked=_is_revoked,
            is_over=self._is_over,
            tell_lost=self._tell_lost,
            alive=self._alive_nodes,
            book=claim_client.book_of(self.app.backend),
        )
        self.log_desk = log_command.LogDesk(start=self._bridge.start_asking, read=self._lifecycle.log_page)
        self._bridge.start(self._lifecycle.run)
        self._vitals = Vitals(
            kind="dispatcher", name=self._nodename, folder=self._options.health_folder, asks=self._asks()
        )
        self._vitals.start()

    def _asks(self) -> dict[str, Ask]:
        """What a dispatcher needs from outside, and how each is asked for a sign of life."""
        asks: dict[str, Ask] = {
            "broker": lambda: health_checks.of_broker(self.app),
            "result backend": lambda: health_checks.of_results(self.app),
            "API server": lambda: self._bridge.ask(self._lifecycle.server_answers, timeout_s=SERVER_ANSWERS_S),
        }
        if self._options.database_url:
            asks["database"] = status_store.PodStore(self._options.database_url).ping
        return asks

    def register_with_event_loop(self, loop: Any) -> None:
        """Hooks the bridge into Celery's event loop; again after each reconnect."""
        if self._hub is None:
            loop.call_repeatedly(TURN_S, self._vitals.turned)
        self._hub = loop
        self._bridge.register(loop)
        if self._turning is not None:
            self._turning.cancel()
        self._turning = loop.call_repeatedly(stall_detector.EVERY_S, self._turned)

    def on_stop(self) -> None:
        """Lets go of the pods: they run on, and the next dispatcher takes them back."""
        self._vitals.stop()
        self._bridge.stop()

    on_terminate = on_stop

    def on_apply(
        self,
        target: Any,  # noqa: ARG002 - Celery's tracer is not called here
        args: Sequence[Any],
        kwargs: Mapping[str, Any],  # noqa: ARG002 - Celery sends none
        **options: Any,
    ) -> Attempt:
        """Takes a request in. `target`, Celery's tracer, is not called: the pod runs the body."""
        name, task_id, request, body, content_type, content_encoding = args
        message = Message.from_request(
            name, task_id, request, adoption.decoded(self.app, body, content_type, content_encoding)
        )
        callbacks = Callbacks(
            accept=options["accept_callback"],
            done=options["callback"],
            error=options["error_callback"],
            timeout=options["timeout_callback"],
        )
        attempt = self.attempt_for(message, callbacks, timeout_s=options.get("timeout"))
        self._bridge.to_loop(self._lifecycle.submit, attempt)
        return attempt

    def attempt_for(self, message: Message, callbacks: Callbacks, *, timeout_s: float | None) -> Attempt:
        """An attempt for a message, bound to this pool."""
        return Attempt(
            message=message,
            profile=self.profile_for(message.queue),
            callbacks=callbacks,
            received_at=datetime.now(UTC),
            timeout_s=timeout_s,
            is_any_image=message.name in builder.JUDGED_BY_EXIT_CODE,
            on_terminate=self._terminate,
            task_wishes=_wishes_of(self.app.tasks.get(message.name)),
        )

    def profile_for(self, queue: str) -> options.QueueProfile:
        """The profile of a queue; the defaults where no rule puts it on this side: a consumer was told to take it."""
        try:
            return self._options.profile_for(queue)
        except LookupError:
            return options.QueueProfile()

    def terminate_job(self, pid: Any, signal: Any = None) -> None:  # noqa: ARG002 - the signature is Celery's
        """Deletes the pod that Celery knows as the process `pid`."""
        attempt = self._by_pod.get(pid)
        if attempt is not None:
            self._terminate(attempt)

    def grow(self, n: int = 1) -> None:
        """Allows `n` more pods in flight."""
        self._set_limit(self.limit + n)

    def shrink(self, n: int = 1) -> None:
        """Allows `n` fewer; pods that run are left alone."""
        self._set_limit(max(1, self.limit - n))

    def _is_over(self, attempt: Attempt) -> bool:
        """Whether the outcome of a task is stored. Called from a helper thread; raises what the backend raises."""
        if attempt.callbacks.request.ignore_result:
            return False
        return self.app.backend.get_task_meta(attempt.message.id)["status"] in states.READY_STATES

    def _tell_lost(self, row: PodRow) -> str | None:
        """Stores the failure of an attempt whose pod is gone and whose outcome nobody stored. As `_is_over`."""
        status = self.app.backend.get_task_meta(row.attempt_id)["status"]
        if status in states.READY_STATES or status == states.RETRY:  # a retry is a launch of its own
            return str(status)
        details = {"reason": "PodDeleted", "cause": "infrastructure", "pod": row.name}
        lost = result_reader.diagnosed(errors.PodFailed(f"{row.name}: {status_store.LOST}", details))
        self.app.backend.store_result(row.attempt_id, lost, states.FAILURE)
        return "LOST"

    def _alive_nodes(self) -> set[str] | None:
        """The workers that answer a ping; None where we do not even hear ourselves. Called from a helper thread."""
        try:
            answers = self.app.control.inspect(timeout=PING_S).ping() or {}
        except Exception as error:  # noqa: BLE001 - the broker may be away: then nobody is taken for gone
            logger.debug("no ping: %r", error)
            return None
        return set(answers) if self._nodename in answers else None

    def _set_limit(self, limit: int) -> None:
        self.limit = limit
        self._bridge.to_loop(self._lifecycle.set_limit, limit)

    def _get_info(self) -> dict[str, Any]:
        facts = {"deployment": self._options.deployment, "away": self._vitals.away()}
        return {**super()._get_info(), **self._lifecycle.stats(), **facts}

    def consumer_made(self, consumer: Any) -> None:
        """The worker has a consumer, which does not consume yet."""
        undecodable.listen(consumer)
        task_events.batch(consumer)

    def consumer_ready(self, consumer: Any) -> None:
        """The worker consumes: requests of pods found in the cluster can be rebuilt from now on."""
        self._consumer = consumer
        if self._adoption is None:
            self._adoption = adoption.Adoption(self, bridge=self._bridge, lifecycle=self._lifecycle)
        self._adoption.consumer_ready(consumer)

    def call_later(self, delay_s: float, call: Any, *args: Any) -> Any:
        """Runs a call on the hub's thread after a while."""
        return self._hub.call_later(delay_s, call, *args)

    # What the loop's side tells us, on the hub's thread.

    def named(self, attempt: Attempt) -> None:
        """The pod exists: Celery knows it by name."""
        self._by_pod[attempt.pod] = attempt

    def created(self, attempt: Attempt) -> None:
        """The pod stands in the record: Celery acknowledges the message (unless it acknowledges late)."""
        if not attempt.is_accepted:
            attempt.is_accepted = True
            task_events.accepted(attempt.callbacks.request, attempt.pod)

    def started(self, attempt: Attempt) -> None:
        """The container runs: the time limit counts from here, and `STARTED` is stored if the task asks for it."""
        if attempt.started_at is None:
            return
        self._start_timer(attempt)
        if self._standstill.was_since(attempt.ours_mono, _moment()):
            return  # another dispatcher may have told its end already
        request = attempt.callbacks.request
        task_events.started(request, pod=attempt.pod, not_before=attempt.created_at, at=attempt.started_at)
        task = request.task
        if not task.track_started or request.ignore_result or attempt.profile.credentials == "inherit":
            return
        if self.unstored.is_away:
            return
        meta = {
            "pid": attempt.pod,
            "hostname": self._nodename,
            "pod": attempt.pod,
            "started_at": attempt.started_at.isoformat(),
        }
        try:
            task.backend.store_result(attempt.message.id, meta, "STARTED")
        except Exception as error:  # noqa: BLE001 - a hint only: the outcome is what must not be lost
            logger.warning("STARTED was not stored attempt_id=%s: %s", attempt.message.id, error)

    def ended(self, attempt: Attempt, result: outcome.Outcome | BaseException, failures: int = 0) -> None:
        """Replays the outcome; where the result backend or broker is away, it is kept and comes again."""
        if self._may_be_anothers(attempt, partial(self.ended, attempt, result, failures)):
            return
        self.created(attempt)  # an attempt refused before it had a pod was not accepted yet
        if isinstance(result, errors.PodFailed):
            result = result_reader.diagnosed(result)
        self._stop_timer(attempt)
        if attempt.is_timed_out:
            self._bridge.to_loop(lambda: self._lifecycle.closed(attempt, is_success=False))
            return
        if self._is_lost(attempt, result):
            self._give_back(attempt, raised(WorkerLostError(str(result))), attempt.callbacks.error)
            return
        again = partial(self.ended, attempt, result)
        if self.unstored.is_away:
            self.unstored.keep(again, failures=failures)
            return
        try:
            replayed = self._told(attempt, result)
        except Exception as error:  # noqa: BLE001 - whatever keeps the outcome from being stored: it is kept
            self.unstored.failed(again, failures=failures, error=error)
            return
        task_events.ending(
            attempt.callbacks.request,
            started_at=attempt.started_at,
            ended_at=attempt.ended_at,
            runtime_s=replayed.runtime_s,
        )
        answer = (int(replayed.failed), replayed.value, replayed.runtime_s)
        if replayed.failed and _is_requeued(replayed.value) and attempt.callbacks.request.task.acks_late:
            self._give_back(attempt, answer, attempt.callbacks.done)
            return
        self._by_pod.pop(attempt.pod, None)
        is_success = not replayed.failed
        self._bridge.to_loop(lambda: self._lifecycle.closed(attempt, is_success=is_success))
        attempt.callbacks.done(answer)

    def _told(self, attempt: Attempt, result: outcome.Outcome | BaseException) -> Replayed:
        """The outcome replayed; one that the pod stored itself is only announced."""
        if attempt.profile.credentials == "inherit":
            if isinstance(result, outcome.Outcome) and result.is_stored:
                return self._replay.announced(attempt.message, result)
            stored = self._replay.stored(attempt.message)
            if stored is not None:
                return self._replay.announced(attempt.message, stored)
        return self._replay.replay(attempt.message, result)

    def _is_lost(self, attempt: Attempt, result: outcome.Outcome | BaseException) -> bool:
        """Whether the pod counts as a lost worker, and the task says what should happen then."""
        if not isinstance(result, errors.PodFailed) or result.details.get("cause") != "infrastructure":
            return False
        task = attempt.callbacks.request.task
        return bool((task.acks_late and task.reject_on_worker_lost) or getattr(task, "retry_on_worker_lost", False))

    def _give_back(self, attempt: Attempt, answer: Any, callback: Callable[[Any], Any]) -> None:
        """Celery puts the message back into its queue; the pod goes first, because its name is wanted again."""
        self._by_pod.pop(attempt.pod, None)
        self._bridge.to_loop(self._lifecycle.given_back, attempt, lambda: self._bridge.to_hub(callback, answer))

    def dropped(self, attempt: Attempt) -> None:
        """Somebody else finishes it: the request ends here without a result."""
        self._stop_timer(attempt)
        if self._by_pod.get(attempt.pod) is attempt:
            del self._by_pod[attempt.pod]
        if not attempt.is_accepted:
            attempt.is_accepted = True
            task_events.accepted(attempt.callbacks.request, attempt.pod or attempt.message.id)
        attempt.callbacks.error(raised(Ignore()))

    def withdrawn(self, attempt: Attempt) -> None:
        """It was revoked before it had a pod: Celery's request stores that itself when it is asked."""
        if self._may_be_anothers(attempt, partial(self.withdrawn, attempt)):
            return
        attempt.callbacks.request.revoked()

    def found(self, pod: Mapping[str, Any], *, is_ended: bool) -> None:
        """A pod of ours without an attempt: it is adopted as soon as requests can be rebuilt."""
        if self._adoption is None:
            self._adoption = adoption.Adoption(self, bridge=self._bridge, lifecycle=self._lifecycle)
        self._adoption.found(pod, is_ended=is_ended)

    def _turned(self) -> None:
        self._standstill.turned(_moment())

    def _may_be_anothers(self, attempt: Attempt, again: Callable[[], None]) -> bool:
        """After a standstill another dispatcher may have told what we are about to tell.

        Then it is asked first; `again` is called if the attempt is still ours. Says whether that is so.
        """
        now = _moment()
        if not self._standstill.was_since(attempt.ours_mono, now):
            return False
        self._standstill.turned(now)
        self._bridge.to_loop(self._lifecycle.ask_whose, attempt, lambda: self._bridge.to_hub(again))
        return True

    def _terminate(self, attempt: Attempt) -> None:
        self._stop_timer(attempt)
        self._by_pod.pop(attempt.pod, None)
        self._bridge.to_loop(self._lifecycle.terminate, attempt)

    def _start_timer(self, attempt: Attempt) -> None:
        left_s = attempt.left_s(datetime.now(UTC))
        if left_s is not None and attempt.timer is None:
            attempt.timer = self.call_later(left_s, self._time_is_up, attempt)

    def _stop_timer(self, attempt: Attempt) -> None:
        if attempt.timer is not None:
            attempt.timer.cancel()

    def _time_is_up(self, attempt: Attempt, failures: int = 0) -> None:
        """Celery stores that the hard limit passed; only then the pod is deleted."""
        if attempt.pod not in self._by_pod and not attempt.is_timed_out:
            return
        if attempt.ended_at is not None and not attempt.is_timed_out:
            return  # its container ended in time, though we hear late of it: its outcome follows
        if self._may_be_anothers(attempt, partial(self._time_is_up, attempt, failures)):
            return
        self._by_pod.pop(attempt.pod, None)
        attempt.is_timed_out = True
        again = partial(self._time_is_up, attempt)
        if self.unstored.is_away:
            self.unstored.keep(again, failures=failures)
            return
        try:
            attempt.callbacks.timeout(_HARD, attempt.timeout_s)
        except Exception as error:  # noqa: BLE001 - as with outcomes: it is kept until it can be stored
            self.unstored.failed(again, failures=failures, error=error)
            return
        self._bridge.to_loop(self._lifecycle.terminate, attempt)


class _Passed:
    """The `hub.Hub` that passes each call over the bridge to the pool."""

    def __init__(self, bridge: Bridge, pool: KubernetesPool) -> None:
        self._bridge = bridge
        self._pool = pool

    def named(self, attempt: Attempt) -> None:
        self._bridge.to_hub(self._pool.named, attempt)

    def created(self, attempt: Attempt) -> None:
        self._bridge.to_hub(self._pool.created, attempt)

    def started(self, attempt: Attempt) -> None:
        self._bridge.to_hub(self._pool.started, attempt)

    def ended(self, attempt: Attempt, result: outcome.Outcome | BaseException) -> None:
        self._bridge.to_hub(self._pool.ended, attempt, result)

    def dropped(self, attempt: Attempt) -> None:
        self._bridge.to_hub(self._pool.dropped, attempt)

    def withdrawn(self, attempt: Attempt) -> None:
        self._bridge.to_hub(self._pool.withdrawn, attempt)

    def found(self, pod: Mapping[str, Any], *, is_ended: bool) -> None:
        self._bridge.to_hub(lambda: self._pool.found(pod, is_ended=is_ended))


def _moment() -> Moment:
    clock = getattr(time, "CLOCK_BOOTTIME", None)  # Linux; elsewhere a suspended machine may go unnoticed
    mono_s = time.monotonic()
    return Moment(mono_s=mono_s, boot_s=mono_s if clock is None else time.clock_gettime(clock))


def _wishes_of(task: Any) -> Mapping[str, Any]:
    """What `@app.task(pod_override=…, pod_template_file=…)` says: Celery keeps options that it does not know."""
    asked = {name: getattr(task, name, None) for name in ("pod_override", "pod_template_file")}
    return {name: value for name, value in asked.items() if value is not None}


def _is_revoked(attempt: Attempt) -> bool:
    """Whether it was revoked or has expired while it waited. Called from the loop's thread: it only reads."""
    expires = attempt.callbacks.request.expires
    return attempt.message.id in worker_state.revoked or (
        expires is not None and expires < datetime.now(expires.tzinfo)
    )


def _is_requeued(value: ExceptionInfo) -> bool:
    """Whether a body rejected its message and wants it put back."""
    error = value.exception
    return isinstance(getattr(error, "exc", error), Reject) and getattr(error, "exc", error).requeue
