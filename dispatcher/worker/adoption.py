"""Adoption: pods that nobody here knows become requests of this worker again. DESIGN rule 3.

After a restart the cluster is listed, and each pod of ours carries its task message: the Celery request is rebuilt from
it, so that its result, its chain and its chord go on as if nothing had happened. A pod whose outcome had been stored
before the crash is only cleaned up. Runs on the hub's thread.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from celery import bootsteps, states
from celery.app.trace import prepare_accept_content
from celery.worker import state as worker_state
from celery.worker.request import Request
from kombu.serialization import loads as loads_message

from dispatcher.attempts.attempt import Callbacks
from dispatcher.manifests import builder
from dispatcher.protocol.message import Message
from dispatcher.watching.controller import Lifecycle
from dispatcher.worker.bridge import Bridge

logger = logging.getLogger(__name__)

AGAIN_S = 5.0


class Adoption:
    """Rebuilds requests, once the worker consumes."""

    def __init__(self, pool: Any, *, bridge: Bridge, lifecycle: Lifecycle) -> None:
        self._pool = pool
        self._bridge = bridge
        self._lifecycle = lifecycle
        self._consumer: Any = None
        self._early: list[tuple[Mapping[str, Any], bool]] = []

    def consumer_ready(self, consumer: Any) -> None:
        """Takes what was found before the worker was ready."""
        self._consumer = consumer
        early, self._early = self._early, []
        for pod, is_ended in early:
            self.found(pod, is_ended=is_ended)

    def found(self, pod: Mapping[str, Any], failures: int = 0, *, is_ended: bool) -> None:
        """Adopts a pod, or cleans up behind one whose outcome is stored."""
        if self._consumer is None:
            self._early.append((pod, is_ended))
            return
        name = pod["metadata"]["name"]
        try:
            message = builder.message_of(pod)
        except ValueError as error:
            logger.warning("a pod cannot be adopted pod=%s: %s", name, error)
            return
        unstored, again = self._pool.unstored, partial(self.found, pod, is_ended=is_ended)
        if is_ended and unstored.is_away:
            unstored.keep(again, failures=failures)
            return
        try:
            is_stored = is_ended and self._is_stored(message)
        except Exception as error:  # noqa: BLE001 - whatever the backend raises: the pod is looked at again
            unstored.failed(again, failures=failures, error=error)
            return
        try:
            if is_stored:
                self._clean(pod, message)
            else:
                self._adopt(pod, message)
        except Exception as error:  # noqa: BLE001 - a task may be unknown here: the others go on
            logger.warning("a pod is not adopted yet pod=%s: %r", name, error)
            self._pool.call_later(AGAIN_S, lambda: self.found(pod, is_ended=is_ended))

    def _is_stored(self, message: Message) -> bool:
        """Whether the outcome of this launch stands in the result backend.

        A RETRY that is stored may be one of an earlier launch, so it does not count: sending the retry again is
        harmless, because its pod's name is a claim.
        """
        if message.headers.get("ignore_result"):
            return False
        return self._pool.app.backend.get_task_meta(message.id)["status"] in states.READY_STATES

    def _clean(self, pod: Mapping[str, Any], message: Message) -> None:
        profile = self._pool.profile_for(message.queue)
        is_success = (pod.get("status") or {}).get("phase") == "Succeeded"
        self._bridge.to_loop(lambda: self._lifecycle.clean(pod, profile, is_success=is_success))

    def _adopt(self, pod: Mapping[str, Any], message: Message) -> None:
        request = self._request(message)
        callbacks = Callbacks(
            accept=request.on_accepted, done=request.on_success, error=request.on_failure, timeout=request.on_timeout
        )
        limit_s = request.time_limits[0] or request.task.time_limit
        attempt = self._pool.attempt_for(message, callbacks, timeout_s=limit_s)
        attempt.pod = pod["metadata"]["name"]
        request._apply_result = lambda: attempt  # noqa: SLF001 - a weak reference in Celery; the pool holds the attempt
        worker_state.task_reserved(request)
        self._pool.named(attempt)
        self._pool.created(attempt)
        self._bridge.to_loop(self._lifecycle.adopt, attempt, pod)

    def _request(self, message: Message) -> Request:
        consumer = self._consumer
        request = Request(
            _Delivered(message),
            app=self._pool.app,
            hostname=consumer.hostname,
            eventer=consumer.event_dispatcher,
            task=self._pool.app.tasks[message.name],
            connection_errors=consumer.connection_errors,
            body=[message.args, message.kwargs, message.embed],
            headers={**message.headers, "id": message.id, "task": message.name},
            decoded=True,
            utc=True,
            on_ack=_acknowledged,
            on_reject=_acknowledged,
        )
        request.on_reject = lambda logger, errors, requeue: _put_back(request) if requeue else None  # noqa: ARG005 - Celery's words
        return request


class _Delivered:
    """A message that was acknowledged long ago, as far as Celery's Request looks at messages."""

    def __init__(self, message: Message) -> None:
        self.headers = dict(message.headers)
        self.properties = dict(message.properties)
        self.delivery_info = dict(message.delivery_info)
        self.body = [message.args, message.kwargs, message.embed]
        self.acknowledged = True
        self.received_at = time.monotonic()


def _put_back(request: Any) -> None:
    """Sends the message of an adopted pod anew: the broker has none that could be put back."""
    again = request.task.signature_from_request(request._context, retries=request._context.retries)  # noqa: SLF001 - as Celery does
    again.apply_async(task_id=request.id)


def _acknowledged(*args: Any) -> None:
    """The broker forgot this message when its pod was created."""


def step_for(pool: Any) -> type[bootsteps.StartStopStep]:
    """A consumer step that tells the pool of a new consumer, and when it consumes: at first and after reconnects."""

    class ConsumerReady(bootsteps.StartStopStep):
        requires = ("celery.worker.consumer.tasks:Tasks",)

        def __init__(self, parent: Any, **kwargs: Any) -> None:
            super().__init__(parent, **kwargs)
            pool.consumer_made(parent)

        def start(self, parent: Any) -> None:
            pool.consumer_ready(parent)

    return ConsumerReady


def decoded(app: Any, body: Any, content_type: str | None, content_encoding: str | None) -> Sequence[Any]:
    """(args, kwargs, embed) of a message body. Raises what kombu raises for content that the app does not accept."""
    if not content_type:
        return body  # type: ignore[no-any-return]
    accept = prepare_accept_content(app.conf.accept_content)
    return loads_message(body, content_type, content_encoding, accept=accept)  # type: ignore[no-any-return]
