"""Queue facts: who consumes a queue now, what waits in it and what runs, as far as broker, workers and record say.

Workers are asked directly, so that one which is gone is missed at once and no scheduler is needed: plain Celery
applications have none. What cannot be reached leaves its facts unknown; the rules are there without anything.
"""

import concurrent.futures
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import kombu.exceptions
import redis.exceptions
from kombu.transport import redis as redis_transport

from routing import router
from routing.cli import reach
from routing.cli.failure import Failure
from routing.monitoring import queue_consumers
from routing.store import RecordError, Store, messagewaits, rows

if TYPE_CHECKING:
    from celery import Celery

ANSWER_S = 1.0
"""How long workers have for an answer; a broadcast always takes so long."""
_PRIORITIES = 256
"""kombu's message priorities are 0 to 255, each of which may be a step of its own."""
_NOT_FOUND = "404"
LOOKS = 2
"""Where a queue has no consumer, everybody is asked once more: somebody may have been busy."""


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A queue, or a rule whose pattern no queue is known for."""

    queue: str
    side: router.Side
    rule: str
    is_pattern: bool = False
    consumers: tuple[str, ...] | None = None
    """Nodes that consume it; None where that is unknown, and for a pattern."""
    messages: int | None = None
    """In the queue, of whatever application; None where that is unknown."""
    in_flight: int | None = None
    """Begun and not ended, by the word of workers and dispatchers."""
    waiting: int | None = None
    """Attempts of DAGs that have not begun, by the record."""
    oldest_at: datetime | None = None
    """When the oldest of those was recorded."""

    @property
    def is_unconsumed(self) -> bool:
        """Whether it is known that nobody consumes it."""
        return self.consumers == ()

    app: str | None = None
    """The Celery application whose queue it is; None for that of DAGs."""

    @property
    def start_command(self) -> str:
        """What starts a consumer."""
        if self.app is None:
            return messagewaits.start_command(self.side, self.queue)
        app, queue = shlex.quote(self.app), shlex.quote(self.queue)
        if self.side == "kubernetes":
            return f"podyard dispatcher --app {app} --queues {queue}"
        return f"celery -A {app} worker -Q {queue}"


@dataclass(kw_only=True)
class _Seen:
    """What could be learned."""

    consumers: Mapping[str, set[str]] | None = None
    in_flight: Mapping[str, int] = field(default_factory=dict)
    waiting: Mapping[str, rows.QueueRow] | None = None
    used: set[str] = field(default_factory=set)
    unknown: list[str] = field(default_factory=list)
    """Why something is not known."""


def gather(
    app: "Celery", rules: router.Router, *, path: str | None, open_store: Callable[[], Store]
) -> tuple[list[Fact], list[str]]:
    """A fact for each rule, in the order of asking, and for each other queue in use; and what is unknown, and why.

    `app` reaches the broker, by the options that its senders and workers have; `path` names a Celery application of
    the user's own, which has no record of DAGs.
    """
    seen = _Seen()
    if path is None:
        _ask_record(seen, open_store)
    else:
        seen.used = _queues_of(app)
    try:
        _ask_workers(seen, app, rules)
        names = _others(rules, seen, default=str(app.conf.task_default_queue))
        messages = _messages(app, [*(rule.name for rule in rules.rules if not rule.is_pattern), *names], seen)
    finally:
        app.close()
    found = [
        *(_of_rule(rule, seen, messages) for rule in rules.rules),
        *(_of_queue(rules, name, seen, messages) for name in names),
    ]
    return [replace(fact, app=path) for fact in found], seen.unknown


def _queues_of(app: "Celery") -> set[str]:
    """The queues that an application names: declared, or written into its table of routes."""
    routes = app.conf.task_routes
    tables = [one for one in (routes if isinstance(routes, list | tuple) else [routes]) if isinstance(one, Mapping)]
    routed = [route for table in tables for route in table.values()]
    named = [route.get("queue") if isinstance(route, Mapping) else route for route in routed]
    return {*app.amqp.queues, *(str(getattr(queue, "name", queue)) for queue in named if queue)}


def _of_rule(rule: router.QueueRule, seen: _Seen, messages: Mapping[str, int]) -> Fact:
    if rule.is_pattern:
        return Fact(queue=rule.name, side=rule.side, rule=rule.name, is_pattern=True)
    return _fact(rule.name, rule.side, rule.name, seen, messages)


def _of_queue(rules: router.Router, queue: str, seen: _Seen, messages: Mapping[str, int]) -> Fact:
    route = rules.route(queue)
    return _fact(queue, route.side, route.rule, seen, messages)


def _fact(queue: str, side: router.Side, rule: str, seen: _Seen, messages: Mapping[str, int]) -> Fact:
    of_record = None if seen.waiting is None else seen.waiting.get(queue, rows.QueueRow(queue=queue))
    return Fact(
        queue=queue,
        side=side,
        rule=rule,
        consumers=None if seen.consumers is None else tuple(sorted(seen.consumers.get(queue, ()))),
        messages=messages.get(queue),
        in_flight=None if seen.consumers is None else seen.in_flight.get(queue, 0),
        waiting=None if of_record is None else of_record.waiting,
        oldest_at=None if of_record is None else of_record.oldest_at,
    )


def _others(rules: router.Router, seen: _Seen, *, default: str) -> list[str]:
    """Queues in use that no rule names exactly."""
    named = {rule.name for rule in rules.rules if not rule.is_pattern}
    always = {default} if seen.consumers is not None else set()
    waiting = seen.waiting or {}
    return sorted({*always, *(seen.consumers or ()), *waiting, *seen.used} - named)


def _ask_record(seen: _Seen, open_store: Callable[[], Store]) -> None:
    try:
        store = open_store()
        seen.waiting = {row.queue: row for row in store.queues()}
        seen.used = queue_consumers.queues_of(store.dags())
    except (Failure, RecordError) as error:
        seen.unknown.append(f"what DAGs wait for is not known: {reach.words(error)}")


def _ask_workers(seen: _Seen, app: "Celery", rules: router.Router) -> None:
    """Two questions at once: each takes as long as workers have for an answer."""
    try:
        _require_broker(app)
        # Each broadcast takes its whole second, whoever answers.
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            active = pool.submit(_inspect, app, "active")
            seen.consumers = _consumers(_inspect(app, "active_queues"))
            expected = {rule.name for rule in rules.rules if not rule.is_pattern}
            if expected - seen.consumers.keys():
                again = _consumers(_inspect(app, "active_queues"))
                seen.consumers = {
                    queue: seen.consumers.get(queue, set()) | again.get(queue, set())
                    for queue in {*seen.consumers, *again}
                }
            seen.in_flight = Counter(
                str((task.get("delivery_info") or {}).get("routing_key"))
                for tasks in active.result().values()
                for task in tasks
            )
    except (kombu.exceptions.KombuError, redis.exceptions.RedisError, OSError) as error:
        seen.unknown.append(f"consumers and messages are not known, the broker does not answer: {reach.words(error)}")


def _require_broker(app: Any) -> None:
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, interval_max=0)


def _inspect(app: Any, question: str) -> Mapping[str, Any]:
    # One of its own: kombu's connections are not made for two threads.
    with app.connection_for_write() as connection:
        answers = app.control.broadcast(question, reply=True, timeout=ANSWER_S, connection=connection)
    return {node: answer for one in answers or () for node, answer in one.items() if isinstance(answer, list)}


def _consumers(answers: Mapping[str, Iterable[Mapping[str, Any]]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for node, queues in answers.items():
        for queue in queues:
            found.setdefault(str(queue.get("name")), set()).add(node)
    return found


def _messages(app: "Celery", names: Iterable[str], seen: _Seen) -> dict[str, int]:
    """How many messages wait in each queue, by the broker's own word: what a consumer has taken is not among them."""
    if seen.consumers is None:
        return {}
    found = {}
    try:
        with app.connection_for_write() as connection:
            for name in names:
                try:
                    found[name] = _size(connection.default_channel, name)
                except (NotImplementedError, *connection.channel_errors) as error:
                    seen.unknown.append(f"messages of the queue {name!r} are not known: {reach.words(error)}")
    except (kombu.exceptions.KombuError, redis.exceptions.RedisError, OSError) as error:
        seen.unknown.append(f"messages are not known, the broker does not answer: {reach.words(error)}")
    return found


def _size(channel: Any, queue: str) -> int:
    """The messages that are ready in a queue; 0 for one that does not exist yet.

    Redis keeps a list for each priority step, and only its clients know which steps they use: whatever they are, all
    that kombu can write are counted. Prefix and separator are those of `channel`, that is of the application.
    """
    if isinstance(channel, redis_transport.Channel):
        keys = [queue, *(f"{queue}{channel.sep}{step}" for step in range(1, _PRIORITIES))]
        # 256 questions in one round trip; a count that is a moment old is none the worse.
        with channel.client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.llen(key)
            return sum(pipe.execute())
    try:
        declared = channel.queue_declare(queue=queue, passive=True)
    except kombu.exceptions.ChannelError as error:
        if str(error.code or error.reply_code) == _NOT_FOUND:
            return 0
        raise
    return int(declared.message_count)
