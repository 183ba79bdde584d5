"""What becomes of requests: the events of the cluster's side, carried out on Celery's. On the hub's thread.

An outcome is replayed through Celery's tracer and only then closed on the other side, so that no pod goes before its
outcome is stored. What the result backend does not take is kept (`result_outbox`) and comes again as the same event.
After a stall another dispatcher may have reported what we are about to report: then the other side is asked first.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeGuard

from billiard.einfo import ExceptionInfo
from celery.exceptions import Ignore, Reject, TimeLimitExceeded, WorkerLostError

from dispatcher import errors, options
from dispatcher.attempts import endings
from dispatcher.attempts.attempt import Attempt
from dispatcher.attempts.celery_side import (
    Adopt,
    Clean,
    Close,
    ConfirmOwner,
    Dropped,
    Ended,
    Event,
    Found,
    Launched,
    Owned,
    Released,
    Requeue,
    Started,
    Withdrawn,
)
from dispatcher.manifests import builder
from dispatcher.protocol import outcome
from dispatcher.protocol.message import PUT_BACK_HEADER, Message
from dispatcher.worker import adoption, task_events
from dispatcher.worker.backend_questions import BackendQuestions
from dispatcher.worker.bridge import Bridge
from dispatcher.worker.replay import Replay, Replayed, raised
from dispatcher.worker.requests import Callbacks, HeldRequest, HeldRequests, TimeLimits
from dispatcher.worker.result_outbox import ResultOutbox
from dispatcher.worker.stall_detector import Moment, StallDetector

logger = logging.getLogger(__name__)

ADOPT_AGAIN_S = 5.0
_OUT_OF_TIME = (TimeLimitExceeded.__module__, TimeLimitExceeded.__qualname__)
_HARD = False
"""Celery's first argument of a time-out callback: is it the soft limit?"""


@dataclass(frozen=True, kw_only=True)
class TimeIsUp:
    """The hard time limit of a request has passed."""

    delivery: str
    owned_mono_s: float


class Deliveries:
    """All requests of this worker that have pods, or will have."""

    def __init__(
        self,
        app: Any,
        *,
        options: options.Options,
        bridge: Bridge,
        replay: Replay,
        outbox: ResultOutbox,
        questions: BackendQuestions,
    ) -> None:
        self._app = app
        self._options = options
        self._bridge = bridge
        self._replay = replay
        self._outbox = outbox
        self._questions = questions
        self.default_limits = TimeLimits()
        """Of tasks that say nothing: those of the worker's command line."""
        self._held = HeldRequests()
        self._consumer: Any = None
        self._found_before_start: list[Found] = []
        """Pods that were found before the worker consumed."""
        self._unconfirmed: dict[str, list[tuple[Any, int]]] = {}
        """Delivery -> what is to be done once it is certain that it is still ours."""
        self.stalls = StallDetector(Moment.now())
        self._hub: Any = None

    def use_timers(self, hub: Any) -> None:
        """Takes the timers of Celery's hub."""
        self._hub = hub

    def consumer_ready(self, consumer: Any) -> None:
        """The worker consumes: requests can be rebuilt from now on."""
        self._consumer = consumer
        # Pods may be listed before the broker has answered once, and a request needs the consumer's eventer.
        waiting, self._found_before_start = self._found_before_start, []
        for found in waiting:
            self.take(found)

    def hold(self, message: Message, callbacks: Callbacks, *, limits: TimeLimits) -> tuple[HeldRequest, Attempt]:
        """The two halves of a message that was received: the request for this side, the attempt for the other one.

        `limits` are those of message and task; the worker's hold where there are none.
        """
        limits = limits.or_else(self.default_limits)
        request = callbacks.request
        profile = self.profile_for(message.queue)
        attempt = Attempt(
            message=message,
            profile=profile,
            received_at=datetime.now(UTC),
            timeout_s=limits.hard_s,
            soft_timeout_s=limits.soft_s,
            task_options=_options_of(self._app.tasks.get(message.name)),
            # Decided once, here: it says whether a launch can be claimed, and whether a missing outcome means anything.
            stores_result=not request.ignore_result and self._questions.stores_results,
            # Celery looks at it before it hands a request over; here it may wait for hours afterwards.
            expires_at=request.expires,
        )
        held = HeldRequest(
            delivery=attempt.delivery,
            message=message,
            profile=profile,
            callbacks=callbacks,
            bridge=self._bridge,
            timeout_s=limits.hard_s,
        )
        self._held.hold(held)
        return held, attempt

    def profile_for(self, queue: str) -> options.QueueProfile:
        """The profile of a queue; the defaults where no rule puts it on this side: a consumer was started for it."""
        try:
            return self._options.profile_for(queue)
        except LookupError:
            return options.QueueProfile()

    def terminate(self, pod: Any, signal: Any = None) -> None:
        """Ends the request whose pod Celery knows as a process of this name."""
        held = self._held.of_pod(pod)
        if held is not None:
            held.terminate(signal)

    def turn(self) -> None:
        """Tries again what was kept, where it may be."""
        if self._outbox.is_idle:
            return
        entries = self._outbox.turn(now_mono_s=time.monotonic())
        for place, entry in enumerate(entries):
            # The first that fails says that the backend is away again: each
            # further try would block the hub for its time-out.
            if self._outbox.is_away:
                self._outbox.requeue(entries[place:])
                return
            self.take(entry.what, failures=entry.failures)
            self._outbox.tried()

    def take(self, event: Event | TimeIsUp, *, failures: int = 0) -> None:
        """Carries an event out. One that fails is logged, and no other one with it."""
        try:
            self._take(event, failures)
        except Exception as error:
            logger.exception("an event of the cluster's side failed event=%s", type(event).__name__)
            if isinstance(event, Ended):  # nobody else would bring this outcome again
                self._outbox.failed(event, failures=failures, error=error, now_mono_s=time.monotonic())

    def _take(self, event: Event | TimeIsUp, failures: int) -> None:
        if isinstance(event, Found):
            self._found(event, failures)
            return
        # Events may come after their request has ended (a revoke, a time-out): they have nothing left to do.
        held = self._held.get(getattr(event, "delivery", ""))
        if held is None:
            return
        match event:
            case Launched():
                self._accept(held, event.pod)
            case Started():
                self._started(held, event)
            case Ended():
                self._ended(held, event, failures)
            case Dropped():
                self._dropped(held, event.pod)
            case Withdrawn():
                self._withdrawn(held, event, failures)
            case Owned():
                for again, its_failures in self._unconfirmed.pop(held.delivery, ()):
                    self.take(again, failures=its_failures)
            case Released():
                self._released(held)
            case TimeIsUp():
                self._time_is_up(held, event, failures)

    def _accept(self, held: HeldRequest, pod: str) -> None:
        """The pod stands in the record: Celery acknowledges the message (unless it acknowledges late)."""
        # Celery acknowledges on the first call and would announce a start on
        # each: `Launched` and an end may both come here.
        if not held.is_accepted:
            held.is_accepted, held.pod = True, pod
            task_events.accepted(held.request, pod or held.message.id)
            self._drop_copies(held)

    def _started(self, held: HeldRequest, event: Started) -> None:
        """The container runs: the time limit counts from here, and `STARTED` is stored if the task asks for it."""
        held.pod = event.pod
        # A status has whole seconds, so a start may seem to be before the pod was made.
        held.began_at = max(event.started_at, event.created_at or event.started_at)
        left_s = held.left_s(event.started_at)
        time_is_up = TimeIsUp(delivery=held.delivery, owned_mono_s=event.owned_mono_s)
        # Celery leaves time limits to its pools, so that this is where one is kept from outside.
        if left_s is not None and held.timer is None and self._hub is not None:
            held.timer = self._hub.call_later(left_s, self.take, time_is_up)
        if self.stalls.was_since(event.owned_mono_s, Moment.now()):
            return  # another dispatcher may have reported its end already
        task_events.started(held.request, pod=event.pod, not_before=event.created_at, at=event.started_at)
        task = held.request.task
        # A pod with credentials traces its task itself, STARTED included.
        is_stored_elsewhere = held.request.ignore_result or held.profile.credentials == "inherit"
        if not task.track_started or is_stored_elsewhere or self._outbox.is_away:
            return
        meta = {
            "pid": event.pod,
            "hostname": held.request.hostname,
            "pod": event.pod,
            "started_at": event.started_at.isoformat(),
        }
        try:
            # The request, as by Celery's tracer: `rpc://` knows by it where to send this.
            task.backend.store_result(held.message.id, meta, "STARTED", request=held.request._context)
        except Exception as error:  # a hint only: the outcome is what must not be lost
            logger.warning("STARTED was not stored attempt_id=%s: %s", held.message.id, error)
            self._outbox.noticed(error, now_mono_s=time.monotonic())

    def _ended(self, held: HeldRequest, event: Ended, failures: int) -> None:
        """Replays the outcome; where the result backend or broker is away, it is kept and comes again."""
        # Before all else: a time-out that comes while the outcome is kept must not take its place.
        held.is_ended = True
        # Before anything is acknowledged or stored: after a stall both may have been done by another dispatcher.
        if self._may_be_anothers(held, event, failures):
            return
        self._accept(held, event.pod)  # an attempt refused before it had a pod was not accepted yet
        result = event.result
        if isinstance(result, errors.PodFailed):
            result = endings.diagnosed(result)
        # The outcome is here, though it may be stored much later: no limit ends a body that has ended.
        held.stop_timer()
        if held.is_timed_out:  # Celery has stored that already: a second result would take the place of the first
            if _is_put_back_on_timeout(held.request.task):
                self._requeue(held, partial(held.callbacks.timeout, _HARD, held.timeout_s))
            else:
                self._close(held, is_success=False)
            return
        if _is_lost(held, result):  # before the outbox: nothing is stored, so a backend that is away does not matter
            self._requeue(held, partial(held.callbacks.error, raised(WorkerLostError(str(result)))))
            return
        if self._outbox.is_away:
            self._outbox.keep(event, failures=failures)
            return
        # A way of its own: in Celery the request reports a hard limit, not the tracer, which knows none.
        if _is_out_of_time(result):
            self._out_of_time(held, event, result, failures)
            return
        try:
            replayed = self._replayed(held, result)
        except Exception as error:  # whatever keeps the outcome from being stored: it is kept
            self._outbox.failed(event, failures=failures, error=error, now_mono_s=time.monotonic())
            return
        self._answer(held, event, replayed)

    def _out_of_time(self, held: HeldRequest, event: Ended, result: outcome.Outcome, failures: int) -> None:
        """The pod ended its body at the hard limit: Celery reports that as for a process of its own pool."""
        # Celery says "TimeLimitExceeded(30,)" of a limit that was given as 30.
        limit_s: float = int(result.runtime_s) if result.runtime_s.is_integer() else result.runtime_s
        task_events.ending(
            held.request, started_at=event.started_at, ended_at=event.ended_at, runtime_s=result.runtime_s
        )
        if _is_put_back_on_timeout(held.request.task):
            self._requeue(held, partial(held.callbacks.timeout, _HARD, limit_s))
            return
        try:
            self._time_out(held, limit_s)
        except Exception as error:  # as with outcomes: it is kept until it can be stored
            self._outbox.failed(event, failures=failures, error=error, now_mono_s=time.monotonic())
            return
        self._close(held, is_success=False)

    def _answer(self, held: HeldRequest, event: Ended, replayed: Replayed) -> None:
        """Celery is called back with how it ended."""
        task_events.ending(
            held.request,
            started_at=held.began_at or event.started_at,
            ended_at=event.ended_at,
            runtime_s=replayed.runtime_s,
        )
        answer = (int(replayed.failed), replayed.value, replayed.runtime_s)
        # Only what is acknowledged late can go back; Celery ignores `requeue` of the others, too.
        if replayed.failed and _is_requeued(replayed.value) and held.request.task.acks_late:
            self._requeue(held, partial(held.callbacks.done, answer))
            return
        # Closed first: the outcome is stored. What is left for Celery (a late acknowledgement, an event) may fail, and
        # must not keep the pod.
        self._close(held, is_success=not replayed.failed)
        held.callbacks.done(answer)

    def _replayed(self, held: HeldRequest, result: outcome.Outcome | BaseException) -> Replayed:
        """The outcome replayed; one that the pod stored itself is only announced."""
        if held.profile.credentials == "inherit":
            # A second replay would send links and count chords twice: its pod has done all of that.
            if isinstance(result, outcome.Outcome) and result.is_stored:
                return self._replay.announced(held.message, result)
            # It may have stored its outcome and been killed before it could say so.
            stored = self._replay.stored(held.message) if self._questions.stores_results else None
            if stored is not None:
                return self._replay.announced(held.message, stored)
        return self._replay.replay(held.message, result)

    def _close(self, held: HeldRequest, *, is_success: bool) -> None:
        # Released before the pod may go: whatever its last events are, they find no request any more.
        self._held.release(held)
        self._drop_copies(held)
        self._bridge.send(Close(delivery=held.delivery, is_success=is_success))

    def _requeue(self, held: HeldRequest, answer: Callable[[], Any]) -> None:
        """Its message goes back into its queue by `answer`, once nothing stands in its way."""
        held.answer = answer
        # Celery calls it within `answer`, which is the one place that knows whether the message goes back.
        put_back = held.request.on_reject

        def reject(*args: Any) -> None:
            """Celery puts its message back, by a copy that says so where an outcome stands already."""
            if self._is_sent_again(held):
                held.request.on_ack(*args[:2])
            else:
                put_back(*args)

        held.request.on_reject = reject
        self._bridge.send(Requeue(delivery=held.delivery))

    def _is_sent_again(self, held: HeldRequest) -> bool:
        """Whether its message was sent anew, with a header that tells it from one that a crash brought back after its
        end; it need not be where no outcome stands, and cannot be while the result backend or the broker is away.
        """
        if held.request.ignore_result:
            return False
        try:
            stored_at = self._questions.outcome_stored_at(held.message.id)
            if stored_at is not None:
                adoption.requeue(held.request, held.message, {PUT_BACK_HEADER: stored_at})
        except Exception as error:  # whatever the backend or the broker raise
            logger.warning("a message goes back as it was attempt_id=%s: %s", held.message.id, error)
            return False
        return stored_at is not None

    def _released(self, held: HeldRequest) -> None:
        self._held.release(held)
        if held.answer is not None:
            held.answer()
        self._drop_copies(held)

    def _dropped(self, held: HeldRequest, pod: str) -> None:
        """Somebody else finishes it: the request ends here without a result.

        A second delivery of one that waits here is not acknowledged before the first: nothing would be left in the
        broker of an attempt that has no pod yet.
        """
        first = self._held.first_of(held)
        self._held.release(held)
        if first is not None and not first.is_accepted:
            if not held.has_tag_of(first):
                first.copies.append(held)
                return
            held.request.acknowledged = True  # its message is that of the first, which acknowledges it in its time
        self._drop(held, pod)
        if first is not None:
            adoption.know_again(first.request)

    def _drop_copies(self, held: HeldRequest) -> None:
        """What came again of a request ends as soon as nothing depends on its message any more."""
        copies, held.copies = held.copies, []
        for copy in copies:
            self._drop(copy, held.pod)
        if copies and self._held.get(held.delivery) is held:
            adoption.know_again(held.request)

    def _drop(self, held: HeldRequest, pod: str) -> None:
        # The answer to a question after a stall: what was to be reported then is another's.
        self._unconfirmed.pop(held.delivery, None)
        self._accept(held, pod)
        # Ignore ends a request without a result, an event of failure or a link:
        # the first delivery's are the ones that count.
        held.callbacks.error(raised(Ignore()))

    def _withdrawn(self, held: HeldRequest, event: Withdrawn, failures: int) -> None:
        """It was revoked before it had a pod: Celery's request stores that itself when it is asked."""
        if self._may_be_anothers(held, event, failures):
            return
        if self._outbox.is_away:
            self._outbox.keep(event, failures=failures)
            return
        try:
            # What Celery sends within it (the callback of a chord) goes out once, as in a replay.
            with self._replay.sending.replay(held.message.key):
                held.request.revoked()
        except Exception as error:  # as with outcomes: it is kept until it can be stored
            self._outbox.failed(event, failures=failures, error=error, now_mono_s=time.monotonic())
            return
        self._held.release(held)
        self._drop_copies(held)

    def _time_is_up(self, held: HeldRequest, event: TimeIsUp, failures: int) -> None:
        """Celery stores that the hard limit passed; only then the pod is deleted."""
        if held.is_ended and not held.is_timed_out:
            return  # its container ended in time, though the event came late: its outcome is being stored
        if self._may_be_anothers(held, event, failures):
            return
        # Before anything is stored: an end that comes meanwhile would be stored over it.
        held.is_timed_out = True
        if _is_put_back_on_timeout(held.request.task):
            held.terminate()  # its message may only go back once its pod is gone
            return
        if self._outbox.is_away:
            self._outbox.keep(event, failures=failures)
            return
        try:
            self._time_out(held, held.timeout_s)
        except Exception as error:  # as with outcomes: it is kept until it can be stored
            self._outbox.failed(event, failures=failures, error=error, now_mono_s=time.monotonic())
            return
        # Behind the store: a pod that is gone while nothing is stored would be a lost one to whoever comes next.
        held.terminate()

    def _time_out(self, held: HeldRequest, limit_s: float | None) -> None:
        """Celery stores the failure, and sends what follows from it. Raises what result backend and broker raise."""
        with self._replay.sending.replay(held.message.key):
            held.callbacks.timeout(_HARD, limit_s)

    def _may_be_anothers(self, held: HeldRequest, event: Ended | Withdrawn | TimeIsUp, failures: int) -> bool:
        """After a stall another dispatcher may have reported what we are about to report: then it is asked first."""
        now = Moment.now()
        # What was certain after the last stall needs no question: in a dispatcher that turns none is ever asked.
        if not self.stalls.was_since(event.owned_mono_s, now):
            return False
        self.stalls.turned(now)  # this event may have been faster than the timer that notices stalls
        # The answer holds from the moment of the question on: a stall while it is under way asks once more.
        again = replace(event, owned_mono_s=now.mono_s)
        # A list: an end and a time-out may both wait for the same answer.
        self._unconfirmed.setdefault(held.delivery, []).append((again, failures))
        self._bridge.send(ConfirmOwner(delivery=held.delivery, attempt_id=held.message.id))
        return True

    # Adoption

    def _found(self, found: Found, failures: int) -> None:
        """A pod of ours without an attempt: it is adopted, or cleaned up behind where its outcome is stored."""
        if self._consumer is None:
            self._found_before_start.append(found)
            return
        name = found.pod["metadata"]["name"]
        try:
            message = builder.message_of(found.pod)
        except ValueError as error:
            logger.warning("a pod cannot be adopted pod=%s: %s", name, error)
            return
        # Of a pod that runs nothing is stored yet: it is adopted though the backend is away, and its limits are kept.
        if found.is_ended and self._outbox.is_away:
            self._outbox.keep(found, failures=failures)
            return
        try:
            is_stored = found.is_ended and self._is_stored(message)
        except Exception as error:  # whatever the backend raises: the pod is looked at again
            self._outbox.failed(found, failures=failures, error=error, now_mono_s=time.monotonic())
            return
        try:
            if is_stored:
                self._clean(found.pod, message)
            else:
                self._adopt(found.pod, message)
        except Exception as error:  # a task may be unknown here: the others go on
            logger.warning("a pod is not adopted yet pod=%s: %r", name, error)
            if self._hub is not None:
                self._hub.call_later(ADOPT_AGAIN_S, self.take, found)

    def _is_stored(self, message: Message) -> bool:
        """Whether the outcome of this launch stands in the result backend.

        A RETRY that is stored may be one of an earlier launch, so it does not count: sending the retry again is
        harmless, because its pod's name is a claim.
        """
        return not message.headers.get("ignore_result") and self._questions.has_outcome(
            message.id, besides=message.known_outcome
        )

    def _clean(self, pod: Mapping[str, Any], message: Message) -> None:
        is_success = (pod.get("status") or {}).get("phase") == "Succeeded"
        self._bridge.send(Clean(pod=pod, profile=self.profile_for(message.queue), is_success=is_success))

    def _adopt(self, pod: Mapping[str, Any], message: Message) -> None:
        request = adoption.request(self._app, self._consumer, message)
        callbacks = Callbacks(
            accept=request.on_accepted, done=request.on_success, error=request.on_failure, timeout=request.on_timeout
        )
        limits = TimeLimits(hard_s=request.time_limits[0] or request.task.time_limit)  # its pod knows the soft one
        held, attempt = self.hold(message, callbacks, limits=limits)
        # In Celery's own order: a request is reserved, then accepted.
        adoption.reserve(request, held)
        self._accept(held, pod["metadata"]["name"])
        self._bridge.send(Adopt(attempt=attempt, pod=pod))


def _is_lost(held: HeldRequest, result: outcome.Outcome | BaseException) -> bool:
    """Whether the pod counts as a lost worker, and the task says what should happen then."""
    if not isinstance(result, errors.PodFailed) or result.details.get("cause") != "infrastructure":
        return False
    task = held.request.task
    return bool((task.acks_late and task.reject_on_worker_lost) or getattr(task, "retry_on_worker_lost", False))


def _is_out_of_time(result: outcome.Outcome | BaseException) -> TypeGuard[outcome.Outcome]:
    """Whether the pod says that it ended its body at the hard time limit."""
    failure = result.failure if isinstance(result, outcome.Outcome) and not result.is_stored else None
    return failure is not None and (failure.module, failure.type) == _OUT_OF_TIME


def _is_put_back_on_timeout(task: Any) -> bool:
    """Whether the message of a task that reaches its hard limit runs again. Celery 5.7 has an option of its own."""
    return bool(task.acks_late and not getattr(task, "acks_on_timeout", task.acks_on_failure_or_timeout))


def _is_requeued(value: ExceptionInfo) -> bool:
    """Whether a body rejected its message and asked for it to be requeued."""
    error = value.exception
    return isinstance(getattr(error, "exc", error), Reject) and getattr(error, "exc", error).requeue


def _options_of(task: Any) -> Mapping[str, Any]:
    """What `@app.task(pod_override=…, pod_template_file=…)` says: Celery keeps options that it does not know."""
    asked = {name: getattr(task, name, None) for name in ("pod_override", "pod_template_file")}
    return {name: value for name, value in asked.items() if value is not None}
