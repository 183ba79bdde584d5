"""Adoption: pods that nobody here knows become requests of this worker again.

After a restart the cluster is listed, and each pod of ours carries its task message: the Celery request is rebuilt from
it, so that its result, its chain and its chord go on as if nothing had happened. A pod whose outcome had been stored
before the crash is only cleaned up. Runs on the hub's thread.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from celery import bootsteps
from celery.app.trace import prepare_accept_content
from celery.worker import state as worker_state
from celery.worker.request import Request
from kombu.serialization import loads as loads_message

from dispatcher.protocol.message import HEADER, Message
from dispatcher.worker import undecodable


def request(app: Any, consumer: Any, message: Message) -> Request:
    """Celery's request for a message that was acknowledged long ago, as if it had just been delivered."""
    made = Request(
        _Delivered(message),
        app=app,
        hostname=consumer.hostname,
        eventer=consumer.event_dispatcher,
        task=app.tasks[message.name],
        connection_errors=consumer.connection_errors,
        body=[message.args, message.kwargs, message.embed],
        # Celery's Request reads id and task from the headers and from nowhere else (protocol 2).
        headers={**message.headers, "id": message.id, "task": message.name},
        decoded=True,
        utc=True,
        on_ack=_acknowledged,
        on_reject=_acknowledged,
    )
    # There is no message at the broker any more: to requeue is to send it anew.
    made.on_reject = lambda logger, errors, is_wanted: requeue(made, message, {}) if is_wanted else None
    return made


def reserve(request: Request, held: Any) -> None:
    """Celery counts the request as its own, and terminates `held` when it is revoked."""
    request._apply_result = lambda: held  # a weak reference in Celery; here the request holds it
    worker_state.task_reserved(request)


def know_again(request: Request) -> None:
    """Celery finds a request by its id once more, to revoke it: it forgets the id when a second delivery of it ends."""
    worker_state.requests[request.id] = request


class _Delivered:
    """A message that was acknowledged long ago, as far as Celery's Request looks at messages."""

    def __init__(self, message: Message) -> None:
        self.headers = dict(message.headers)
        self.properties = dict(message.properties)
        self.delivery_info = dict(message.delivery_info)
        self.body = [message.args, message.kwargs, message.embed]
        self.acknowledged = True
        self.received_at = time.monotonic()


def requeue(request: Any, message: Message, headers: Mapping[str, str]) -> None:
    """Sends a message anew, with these headers: the broker has none that could be put back, or cannot change it."""
    again = request.task.signature_from_request(request._context, retries=request._context.retries)  # as Celery does
    requested = {HEADER: message.requested} if message.requested else {}
    again.options["headers"] = {**(again.options.get("headers") or {}), **requested, **headers}
    again.apply_async(task_id=request.id)


def _acknowledged(*args: Any) -> None:
    """The broker forgot this message when its pod was created."""


def step_for(pool: Any) -> type[bootsteps.StartStopStep]:
    """A consumer step that notifies the pool of a new consumer, and when it consumes: at first and after reconnects."""

    class ConsumerReady(bootsteps.StartStopStep):
        # After `Tasks`, which makes the task consumer, and before the event loop: nothing is consumed yet.
        requires = ("celery.worker.consumer.tasks:Tasks",)

        def __init__(self, parent: Any, **kwargs: Any) -> None:
            super().__init__(parent, **kwargs)
            # In the constructor: `Tasks` hands `on_decode_error` on when it starts, which is before this step does.
            pool.consumer_made(parent)

        def start(self, parent: Any) -> None:
            pool.consumer_ready(parent)

    return ConsumerReady


def decoded(app: Any, body: Any, content_type: str | None, content_encoding: str | None) -> Sequence[Any]:
    """(args, kwargs, embed) of a message body. Raises what kombu raises for content that the app does not accept."""
    if not content_type:
        return body  # type: ignore[no-any-return]
    # Before `accept_content`, which an application may set to take pickle.
    undecodable.check_content(content_type)
    accept = prepare_accept_content(app.conf.accept_content)
    return loads_message(body, content_type, content_encoding, accept=accept)  # type: ignore[no-any-return]
