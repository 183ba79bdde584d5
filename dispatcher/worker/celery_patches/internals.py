"""Internals: every name of Celery, kombu, redis-py and Flower that we lean on and that is no public API, and why.

The one list of them. A test holds each entry against the installed release and says what changed; another finds names
in our code that are missing here; ADR 1 shows the same table. Nobody reads this list at run time.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Internal:
    """One name, and what we take for granted of it."""

    name: str
    """`module:attribute`, dots within a class; an attribute that only instances have is named in `sets`."""
    why: str
    used_by: str
    """The module of ours, from the root of the project."""
    takes: Sequence[str] = ()
    """Names of parameters that we pass or accept, in this order, of a callable."""
    sets: Sequence[str] = ()
    """Attributes that the class gives its instances (`self.x = …` in its code or its bases', or in its body)."""
    says: Sequence[str] = ()
    """Pieces of its source code that a behaviour hangs on, which no test of ours would show at once."""
    since: tuple[int, int] = (5, 6)
    """The first minor of Celery and kombu that has it; where there is none, we do without."""


_CONSUMER = "celery.worker.consumer.consumer:Consumer"
_REQUEST = "celery.worker.request:Request"
_CHANNEL = "kombu.transport.redis:Channel"
_QOS = "kombu.transport.redis:QoS"
_PATCHES = "dispatcher/worker/celery_patches"
_POOL = "dispatcher/worker/pool.py"

INTERNALS: Sequence[Internal] = (
    # The pool, and what a request asks of it.
    Internal(
        name="celery.concurrency.base:BasePool.on_apply",
        takes=("self",),
        why="a request arrives here, with (name, id, request, body, content type, encoding) as its args",
        used_by=_POOL,
    ),
    Internal(
        name=f"{_REQUEST}.execute_using_pool",
        takes=("self", "pool"),
        says=(
            "accept_callback=",
            "timeout_callback=",
            "callback=",
            "error_callback=",
            "timeout=",
            "maybe(ref, result)",
        ),
        why="the callbacks that it hands over are how we report; it holds our attempt only weakly",
        used_by=_POOL,
    ),
    Internal(
        name=f"{_REQUEST}.acknowledge",
        takes=("self",),
        says=("if not self.acknowledged",),
        why="a second delivery under the tag of the first ends without an acknowledgement",
        used_by="dispatcher/worker/deliveries.py",
    ),
    Internal(
        name=f"{_REQUEST}.on_accepted",
        takes=("self", "pid", "time_accepted"),
        says=("task_accepted(self", "self.acknowledge()"),
        why="acknowledges the message; any value may be the process id, ours is the pod's name",
        used_by="dispatcher/worker/task_events.py",
    ),
    Internal(
        name=_REQUEST,
        takes=("self", "message", "on_ack", "hostname", "eventer", "app", "connection_errors"),
        sets=("eventer", "_context", "_apply_result", "worker_pid", "time_limits"),
        why="built by hand for a pod that is adopted; its eventer is changed so that events carry the pod's times",
        used_by="dispatcher/worker/adoption.py",
    ),
    Internal(
        name="celery.worker.state:task_reserved",
        takes=("request",),
        why="a request that was adopted counts as reserved, as one that was received",
        used_by="dispatcher/worker/adoption.py",
    ),
    Internal(
        name="celery.worker.state:requests",
        why="a request of which a second delivery ended is found by its id again",
        used_by="dispatcher/worker/adoption.py",
    ),
    Internal(
        name="celery.worker.state:revoked",
        why="whether a task was revoked before its pod was made",
        used_by="dispatcher/worker/backend_questions.py",
    ),
    Internal(
        name="celery.worker.state:active_requests",
        why="the bodies that a worker runs, whose leases its heartbeat renews",
        used_by="routing/worker/heartbeat.py",
    ),
    Internal(
        name="celery.worker.state:maybe_shutdown",
        why="a wait for the broker ends when the worker is asked to stop",
        used_by=f"{_PATCHES}/broker_loss.py",
    ),
    Internal(
        name="celery.concurrency.base:BasePool._get_info",
        takes=("self",),
        why="numbers of pods in `inspect stats` and on Flower's page of a worker",
        used_by=_POOL,
    ),
    Internal(
        name="celery.concurrency.base:BasePool.register_with_event_loop",
        takes=("self", "loop"),
        why="gives the hub, to which the bridge's pipe is added",
        used_by=_POOL,
    ),
    Internal(
        name="celery.concurrency.base:BasePool.uses_semaphore",
        why="False: Celery's semaphore admits too many when the pool grows; the window is ours",
        used_by=_POOL,
    ),
    # The consumer.
    Internal(
        name=_CONSUMER,
        sets=("hub", "connection_errors", "channel_errors", "app", "hostname"),
        why="what our consumer steps find in their parent",
        used_by="dispatcher/worker/adoption.py",
    ),
    Internal(
        name=f"{_CONSUMER}.connection_for_read",
        takes=("self", "heartbeat"),
        why="a connection is used once its broker takes writes",
        used_by=f"{_PATCHES}/broker_loss.py",
    ),
    Internal(
        name=f"{_CONSUMER}.start",
        says=("broker_channel_error_retry", "self.connection_errors + self.channel_errors"),
        why="with that setting a broker that refuses is joined again, and does not end the worker",
        used_by=f"{_PATCHES}/call_timeouts.py",
    ),
    Internal(
        name=f"{_CONSUMER}.on_send_event_buffered",
        takes=("self",),
        why="events leave in batches",
        used_by="dispatcher/worker/task_events.py",
    ),
    Internal(
        name=f"{_CONSUMER}.create_task_handler",
        why="a message whose body has an odd shape ends as a failure",
        used_by="dispatcher/worker/undecodable.py",
    ),
    Internal(
        name=f"{_CONSUMER}.on_decode_error",
        takes=("self", "message", "exc"),
        why="a message that cannot be read ends as a failure",
        used_by="dispatcher/worker/undecodable.py",
    ),
    Internal(
        name=f"{_CONSUMER}.on_invalid_task",
        takes=("self", "body", "message", "exc"),
        why="a message that is no task ends as a failure",
        used_by="dispatcher/worker/undecodable.py",
    ),
    Internal(
        name=f"{_CONSUMER}.on_unknown_message",
        takes=("self", "body", "message"),
        why="a message of no protocol ends as a failure",
        used_by="dispatcher/worker/undecodable.py",
    ),
    Internal(
        name="kombu.messaging:Consumer._basic_consume",
        takes=("self", "queue"),
        says=("queue.consume(", "self._receive_callback"),
        why="called once for each queue that is consumed, with what is called for its messages",
        used_by="dispatcher/worker/consumed_queue.py",
    ),
    Internal(
        name="kombu.messaging:Consumer._receive_callback",
        takes=("self", "message"),
        why="called for each message, whose queue is noted there",
        used_by="dispatcher/worker/consumed_queue.py",
    ),
    Internal(
        name="celery.worker.consumer.events:Events.start",
        says=("c.event_dispatcher = ",),
        why="requests that are rebuilt announce their events by the consumer's dispatcher of events",
        used_by="dispatcher/worker/adoption.py",
    ),
    Internal(
        name="celery.worker.consumer.tasks:Tasks.start",
        says=("c.task_consumer = ", "c.connection.default_channel.basic_qos"),
        why="our steps require it: after it, and before the event loop, the channel of messages exists",
        used_by=f"{_PATCHES}/broker_loss.py",
    ),
    Internal(
        name="celery.worker.components:Pool",
        why="steps that start threads come after it, when the children were forked",
        used_by="routing/worker/heartbeat.py",
    ),
    Internal(
        name="celery.worker:WorkController",
        sets=("exitcode", "hostname"),
        why="`worker_main` says nothing of how a worker ended; the worker does",
        used_by="routing/cli/processes.py",
    ),
    # Replay and the pod.
    Internal(
        name="celery.app.trace:build_tracer",
        takes=("name", "task", "loader", "hostname", "store_errors"),
        says=("monotonic", "mark_as_done", "task.backend"),
        why="outcomes are replayed through Celery's own tracer, with a clock that passes what the pod took",
        used_by="dispatcher/worker/replay.py",
    ),
    Internal(
        name="celery.app.trace:prepare_accept_content",
        why="which content a message may have, as the worker itself decides it",
        used_by="dispatcher/worker/adoption.py",
    ),
    Internal(
        name="celery.app.trace:_install_stack_protection",
        why="a pod with credentials traces its task as a worker's child does",
        used_by="dispatcher/pod/runner.py",
    ),
    Internal(
        name="celery._state:_task_stack", why="`current_task` inside of a pod", used_by="dispatcher/pod/runner.py"
    ),
    Internal(
        name="celery._state:_set_task_join_will_block",
        takes=("blocks",),
        why="a body that waits for another task's result is refused, as in a worker's child",
        used_by="dispatcher/pod/app_process.py",
    ),
    Internal(
        name="celery.app.base:Celery.backend",
        why="a pod without credentials has a result backend that refuses in words",
        used_by="dispatcher/pod/credentials.py",
    ),
    Internal(
        name="celery.utils.serialization:get_pickleable_exception",
        takes=("exc",),
        why="exceptions travel as those of a worker's child do",
        used_by="dispatcher/pod/failures.py",
    ),
    Internal(
        name="celery.utils.serialization:ensure_serializable",
        takes=("items", "encoder"),
        why="so are their arguments",
        used_by="dispatcher/pod/failures.py",
    ),
    Internal(
        name="celery.app.base:Celery",
        sets=("_local", "_backend", "_backend_cache", "_tasks"),
        why="a result backend that was made already is made again with short time-outs; tasks are registered late",
        used_by=f"{_PATCHES}/call_timeouts.py",
    ),
    Internal(
        name="kombu.serialization:loads",
        takes=("data", "content_type", "content_encoding", "accept"),
        why="bodies are read by kombu's rules of what is accepted",
        used_by="dispatcher/worker/adoption.py",
    ),
    # Redis as result backend.
    Internal(
        name="celery.backends.redis:RedisBackend._set_with_state",
        why="the script of `store_script` stands for it, only where it is Celery's own",
        used_by=f"{_PATCHES}/store_script.py",
    ),
    Internal(
        name="celery.backends.base:BaseKeyValueStoreBackend._store_result",
        takes=("self", "task_id", "result", "state", "traceback", "request"),
        why="what stands is read, and the outcome stored, by one script; the DAG's backend reports here",
        used_by=f"{_PATCHES}/store_script.py",
    ),
    Internal(
        name="celery.backends.base:DisabledBackend",
        why="an application without a result backend cannot be asked what stands there",
        used_by="dispatcher/worker/backend_questions.py",
    ),
    Internal(
        name="celery.backends.base:Backend._get_result_meta",
        takes=("self", "result", "state", "traceback", "request"),
        why="what is stored is what Celery stores",
        used_by=f"{_PATCHES}/store_script.py",
    ),
    Internal(
        name="celery.backends.base:Backend.exception_safe_to_retry",
        takes=("self", "exc"),
        why="a child stores again also where the server refuses for a while",
        used_by="routing/results/backend.py",
    ),
    Internal(
        name="celery.backends.redis:RedisBackend._chord_part_return_script",
        why="who finds a chord's claim taken comes again; it answers (parts, more parts, size, whether it claimed)",
        used_by=f"{_PATCHES}/chord_parts.py",
        since=(5, 7),
    ),
    Internal(
        name="celery.backends.redis:RedisBackend._chord_cleanup_script",
        why="where the callback was not sent its first key, the claim, is released, and the chord's data stay",
        used_by=f"{_PATCHES}/chord_parts.py",
        since=(5, 7),
    ),
    Internal(
        name="celery.backends.redis:RedisBackend.on_chord_part_return",
        says=("self.chord_error_from_stack(", "callback.delay"),
        why="the callback of a chord is sent within it by `send_task`",
        used_by=f"{_PATCHES}/chord_parts.py",
    ),
    Internal(
        name="celery.backends.redis:RedisBackend",
        sets=("connparams", "_create_client"),
        why="clients with connections and time-outs of their own",
        used_by="dispatcher/worker/health_checks.py",
    ),
    # Redis as broker.
    Internal(
        name=_CHANNEL,
        sets=(
            "_in_poll",
            "_queue_cycle",
            "handlers",
            "active_queues",
            "priority_steps",
            "global_keyprefix",
            "ack_emulation",
            "unacked_mutex_expire",
        ),
        why="a message is taken and noted in one step; a channel that has asked says so in `_in_poll`",
        used_by=f"{_PATCHES}/atomic_take.py",
    ),
    Internal(
        name=f"{_CHANNEL}._brpop_sent_at",
        why="since when an answer is overdue; None while nothing was asked",
        used_by=f"{_PATCHES}/atomic_take.py",
        since=(5, 7),
    ),
    Internal(
        name=f"{_CHANNEL}._brpop_start",
        says=("self._queue_cycle.consume(len(self.active_queues))", "self._in_poll = self.client.connection"),
        why="replaced: asks by our script",
        used_by=f"{_PATCHES}/atomic_take.py",
    ),
    Internal(
        name=f"{_CHANNEL}._brpop_read",
        says=("self._queue_cycle.rotate(", "self.connection._deliver("),
        why="replaced: reads the script's answer",
        used_by=f"{_PATCHES}/atomic_take.py",
    ),
    Internal(
        name=f"{_CHANNEL}._flush_brpop_reauth",
        why="credentials that change are sent while nothing is under way",
        used_by=f"{_PATCHES}/atomic_take.py",
        since=(5, 7),
    ),
    Internal(
        name=f"{_CHANNEL}._q_for_pri",
        takes=("self", "queue", "pri"),
        why="the list of a queue and a priority",
        used_by=f"{_PATCHES}/atomic_take.py",
    ),
    Internal(
        name=f"{_CHANNEL}._do_restore_message",
        takes=("self", "payload", "exchange", "routing_key", "pipe"),
        says=("self._lookup(exchange, routing_key)", "self._q_for_pri(queue, pri)", "redelivered"),
        why="puts back what a consumer had taken that is dead: into the list of its queue and priority",
        used_by=f"{_PATCHES}/take_leases.py",
    ),
    Internal(
        name=f"{_CHANNEL}._create_client",
        takes=("self", "asynchronous"),
        why="one client is kept for all commands, made again with its pool of connections",
        used_by=f"{_PATCHES}/ack_batching.py",
    ),
    Internal(
        name="kombu.transport.virtual.base:Transport._deliver",
        takes=("self", "message", "queue"),
        why="what was taken goes on as what BRPOP gave",
        used_by=f"{_PATCHES}/atomic_take.py",
    ),
    Internal(
        name=f"{_QOS}.append",
        takes=("self", "message", "delivery_tag"),
        says=(
            "zadd(self.unacked_index_key",
            "hset(self.unacked_key, delivery_tag,",
            "dumps([message._raw, EX, RK])",
            "time()",
        ),
        why="our script notes what kombu notes: tag and time; message, exchange and routing key",
        used_by=f"{_PATCHES}/atomic_take.py",
    ),
    Internal(
        name=f"{_QOS}._remove_from_indices",
        takes=("self", "delivery_tag"),
        says=("zrem(self.unacked_index_key", "hdel(self.unacked_key"),
        why="an acknowledgement takes the tag out of two keys, as ours of a whole turn do",
        used_by=f"{_PATCHES}/atomic_take.py",
    ),
    Internal(
        name=f"{_QOS}.ack",
        takes=("self", "delivery_tag"),
        why="replaced: acknowledgements leave in one transaction",
        used_by=f"{_PATCHES}/ack_batching.py",
    ),
    Internal(
        name=f"{_QOS}.pipe_or_acquire",
        why="a pipeline on the channel's client",
        used_by=f"{_PATCHES}/ack_batching.py",
    ),
    Internal(
        name="kombu.transport.virtual.base:QoS.append",
        takes=("self", "message", "delivery_tag"),
        why="the note of a message in this process alone",
        used_by=f"{_PATCHES}/atomic_take.py",
    ),
    Internal(
        name="kombu.transport.virtual.base:QoS.ack",
        takes=("self", "delivery_tag"),
        why="as above, taken back",
        used_by=f"{_PATCHES}/ack_batching.py",
    ),
    Internal(
        name="kombu.transport.virtual.base:QoS.restore_unacked_once",
        why="guarded: a connection that is gone puts nothing back, and that ends nobody",
        used_by=f"{_PATCHES}/broker_loss.py",
    ),
    Internal(
        name="redis.connection:AbstractConnection",
        sets=("_sock",),
        why="the socket that the hub watches, and whether it is another than before",
        used_by=f"{_PATCHES}/atomic_take.py",
    ),
    # Flower.
    Internal(
        name="flower.urls:handlers",
        why="the page of pods is put before Flower's last address, which catches all",
        used_by="routing/monitoring/pods_page.py",
    ),
    Internal(
        name="flower.urls:settings",
        why="our tab is a template loader of ours",
        used_by="routing/monitoring/pods_page.py",
    ),
    Internal(
        name="flower.api:BaseApiHandler",
        why="Flower's own login guards our API",
        used_by="routing/monitoring/pods_page.py",
    ),
    Internal(
        name="flower.views:BaseHandler",
        why="Flower's own login guards our page",
        used_by="routing/monitoring/pods_page.py",
    ),
    Internal(
        name="tornado.template:Loader._create_template",
        takes=("self", "name"),
        why="a template of Flower's with one more tab",
        used_by="routing/monitoring/pods_page.py",
    ),
)


def as_table(internals: Sequence[Internal] = INTERNALS) -> str:
    """The list as ADR 1 shows it."""
    rows = [
        f"| `{one.name}`{'' if one.since == (5, 6) else f' (since {one.since[0]}.{one.since[1]})'} | {one.why} |"
        for one in internals
    ]
    return "\n".join(["| name | why |", "|---|---|", *rows])
