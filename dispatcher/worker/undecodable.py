"""Undecodable: messages of which Celery makes no request, because they cannot be read. Each still ends as a FAILURE.

Celery's consumer logs such a message and acknowledges or rejects it; whoever waits for its result waits for ever. Where
the message at least says its id, the cause is stored as the task's result. Called by the pool, on the hub's thread.
"""

import logging
from typing import Any

from celery.app.task import Context
from kombu.exceptions import ContentDisallowed

from dispatcher import errors
from dispatcher.attempts import endings

logger = logging.getLogger(__name__)

_WAY_OUT = (
    "task_serializer and accept_content of sender and dispatcher must name the same, json or msgpack; never pickle"
)

_NEVER = ("application/x-python-serialize", "pickle")
"""kombu's content type of pickle, and its name, which kombu takes for one."""


def listen(consumer: Any) -> None:
    """Adds to what a consumer does with messages that it cannot read."""
    for name, words in (
        ("on_decode_error", lambda message, error: (message, f"its content cannot be read: {error}; {_WAY_OUT}")),
        ("on_invalid_task", lambda _, message, error: (message, f"it is no valid task: {error}")),
        ("on_unknown_message", lambda _, message: (message, "it follows no version of Celery's protocol")),
    ):
        setattr(consumer, name, _Told(consumer, getattr(consumer, name), words))
    create = consumer.create_task_handler
    consumer.create_task_handler = lambda *args, **kwargs: _guarded(create(*args, **kwargs), consumer)


def _guarded(handler: Any, consumer: Any) -> Any:
    """Celery's handler of messages; a message whose body has an odd shape harms nobody else.

    Content that is never taken is refused before Celery decodes anything of it.
    """

    def handle(message: Any) -> Any:
        try:
            check_content(message.content_type)
        except ContentDisallowed as error:
            return consumer.on_decode_error(message, error)
        try:
            return handler(message)
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            # What Celery does not expect here ends the worker, and the broker
            # brings the message again, to the next one.
            return consumer.on_invalid_task(None, message, error)

    return handle


class _Told:
    """Celery's reaction, and then the failure stored."""

    def __init__(self, consumer: Any, react: Any, words: Any) -> None:
        self._consumer = consumer
        self._react = react
        self._words = words

    def __call__(self, *args: Any) -> None:
        # Celery first: it acknowledges or rejects, so that the message does not come again whatever the backend does.
        self._react(*args)
        message, why = self._words(*args)
        task_id = _id_of(message)
        if task_id is None:
            return
        error = errors.PodFailed(
            f"the task's message was not run: {why}", {"reason": "UnreadableMessage", "cause": "application"}
        )
        try:
            self._consumer.app.backend.mark_as_failure(task_id, endings.diagnosed(error), request=_asker(message))
        except Exception as trouble:  # the backend may be away; Celery would not have stored anything
            logger.warning("the failure of an unreadable message was not stored attempt_id=%s: %r", task_id, trouble)


def _asker(message: Any) -> Context:
    """Who waits for the result, for backends that send it there (`rpc://`)."""
    properties = message.properties if isinstance(message.properties, dict) else {}
    return Context({name: properties.get(name) for name in ("reply_to", "correlation_id")})


def _id_of(message: Any) -> str | None:
    """What the message says of its task, in its headers or, as every sender of Celery does, as correlation id."""
    headers = message.headers if isinstance(message.headers, dict) else {}
    properties = message.properties if isinstance(message.properties, dict) else {}
    # Anybody may have sent it: of what is no text no key in the result backend is made.
    found = headers.get("id") or properties.get("correlation_id")
    return found if isinstance(found, str) and found else None


def check_content(content_type: str | None) -> None:
    """Raises ContentDisallowed for pickle, whatever the app accepts: to decode it is to run what the sender wants."""
    if content_type in _NEVER:
        raise ContentDisallowed(f"a dispatcher accepts no pickle, whatever accept_content says ({content_type})")
