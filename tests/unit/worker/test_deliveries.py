"""Deliveries: each event of the cluster's side is carried out on Celery's own Request, once, and no outcome is lost.

Application, requests and messages are Celery's and kombu's own, on a broker in memory; the cluster's side is a list of
commands.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from celery import Celery, signals
from celery.backends.cache import CacheBackend
from celery.worker import state as worker_state
from celery.worker.request import Request

from dispatcher import errors
from dispatcher.attempts.attempt import Attempt
from dispatcher.attempts.celery_side import (
    Adopt,
    Clean,
    Close,
    ConfirmOwner,
    Dropped,
    Ended,
    Found,
    Launched,
    Owned,
    Released,
    Requeue,
    Started,
    Terminate,
    Withdrawn,
)
from dispatcher.manifests import builder
from dispatcher.options import Options, QueueProfile
from dispatcher.protocol import outcome
from dispatcher.protocol.message import PUT_BACK_HEADER, Message
from dispatcher.worker import adoption, deliveries, health_checks
from dispatcher.worker.backend_questions import BackendQuestions
from dispatcher.worker.bridge import Bridge
from dispatcher.worker.deliveries import Deliveries
from dispatcher.worker.replay import Replay
from dispatcher.worker.requests import Callbacks, HeldRequest, TimeLimits
from dispatcher.worker.result_outbox import ResultOutbox
from dispatcher.worker.stall_detector import LIMIT_S, Moment, StallDetector
from tests import builders

START = datetime.now(UTC) - timedelta(seconds=60)
AWAY = ConnectionError("the result backend is away")
POD = "pod-1"


class Backend(CacheBackend):
    """Celery's backend in memory, which can be away."""

    trouble: ClassVar[Exception | None] = None
    refused: ClassVar[str] = ""
    """The id of a task whose result is not taken, though the backend is there."""
    writes: ClassVar[list[str]] = []
    tries: ClassVar[int] = 0
    connection_errors = (ConnectionError,)

    def _set_with_state(self, key: Any, value: Any, state: Any) -> Any:
        self._try()
        if self.refused and self.refused in str(key):
            raise ConnectionError("this one is refused")
        self.writes.append(state)
        return super()._set_with_state(key, value, state)

    def get(self, key: Any) -> Any:
        self._try()
        return super().get(key)

    def _try(self) -> None:
        type(self).tries += 1
        if self.trouble is not None:
            raise self.trouble


class Eventer:
    """Celery's event dispatcher, which tells nobody."""

    enabled = True

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def send(self, kind: str, **fields: Any) -> None:
        self.events.append((kind, fields))


@dataclass
class Timer:
    """A timer of Celery's hub."""

    after_s: float
    call: Callable[..., Any]
    args: tuple[Any, ...]
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def fire(self) -> None:
        """Its time has come."""
        assert not self.is_cancelled
        self.call(*self.args)


@dataclass
class Hub:
    """Celery's hub, as far as it has timers."""

    timers: list[Timer] = field(default_factory=list)

    def call_later(self, after_s: float, call: Callable[..., Any], *args: Any) -> Timer:
        self.timers.append(Timer(after_s, call, args))
        return self.timers[-1]


class Consumer:
    """What a rebuilt Request takes of Celery's consumer."""

    hostname = "dispatcher@here"
    connection_errors = (ConnectionError,)

    def __init__(self, eventer: Eventer) -> None:
        self.event_dispatcher = eventer


@dataclass
class Delivery:
    """One message that was received, and its two halves."""

    message: Any
    request: Request
    held: HeldRequest
    attempt: Attempt

    @property
    def id(self) -> str:
        return self.attempt.id

    @property
    def delivery(self) -> str:
        return self.attempt.delivery

    @property
    def state(self) -> str:
        """What became of the message at the broker: kombu's word, and `REQUEUED` where it is in its queue again."""
        if self.message._state != "REJECTED":
            return str(self.message._state)
        return "REQUEUED" if self.message.channel._size("pods") else "REJECTED"


BACKEND = f"{__name__}:Backend+memory://"


class World:
    """The deliveries of one worker."""

    def __init__(self, backend: str | None = BACKEND, *, profile: QueueProfile | None = None) -> None:
        self.app = Celery("delivers", broker="memory://", backend=backend, set_as_current=False)
        self.app.conf.task_acks_on_failure_or_timeout = True
        self._add_tasks()
        self.eventer, self.hub, self.bridge = Eventer(), Hub(), Bridge(name="unused")
        self.profile = profile or QueueProfile()
        self.outbox = ResultOutbox(health_checks.ResultBackendCheck(self.app))
        self.deliveries = Deliveries(
            self.app,
            options=Options(profile_for=self._profile_for, app_path="a:app"),
            bridge=self.bridge,
            replay=Replay(self.app, hostname="dispatcher@here"),
            outbox=self.outbox,
            questions=BackendQuestions(self.app, nodename="dispatcher@here"),
        )
        self.deliveries.use_timers(self.hub)
        self.connection = self.app.connection_for_write()

    def _add_tasks(self) -> None:
        def body(number: int = 0) -> None:
            raise AssertionError("a body runs in a pod")

        def add(name: str, **options: Any) -> None:
            self.app.task(name=name, shared=False, **options)(body)

        add("double")
        add("tracked", track_started=True)
        add("late", acks_late=True)
        add("late-rejects", acks_late=True, reject_on_worker_lost=True)
        add("late-unacked", acks_late=True, acks_on_failure_or_timeout=False)
        add("quiet", ignore_result=True)
        add("shaped", pod_override={"spec": {"nodeName": "n"}})
        self.app.finalize()

    def _profile_for(self, queue: str) -> QueueProfile:
        if queue == "unknown":
            raise LookupError(queue)
        return self.profile

    def close(self) -> None:
        """Nothing stays in the broker's memory."""
        with self.connection.channel() as channel:
            for queue in ("pods", "unknown"):
                channel._purge(queue)
        self.connection.release()

    def received(self, name: str = "double", *, queue: str = "pods", **options: Any) -> Delivery:
        """A message is sent, received, and taken in as the pool does it."""
        self.app.send_task(name, args=[21], queue=queue, **options)
        return self._received(name, queue)

    def _received(self, name: str, queue: str) -> Delivery:
        inbox = self.connection.SimpleQueue(queue)
        message = inbox.get(timeout=1)
        request = Request(
            message,
            app=self.app,
            task=self.app.tasks[name],
            on_ack=message.ack_log_error,
            on_reject=message.reject_log_error,
            hostname="dispatcher@here",
            eventer=self.eventer,
            connection_errors=(ConnectionError,),
        )
        worker_state.task_reserved(request)
        taken: list[Any] = []
        held = request.execute_using_pool(self._Pool(self, taken))
        return Delivery(message, request, held, taken[0])

    class _Pool:
        """As `KubernetesPool.on_apply`."""

        def __init__(self, world: "World", taken: list[Any]) -> None:
            self.world, self.taken = world, taken

        def apply_async(self, target: Any, args: Any, **options: Any) -> HeldRequest:
            name, task_id, request, body, content_type, encoding = args
            decoded = adoption.decoded(self.world.app, body, content_type, encoding)
            message = Message.from_request(name, task_id, request, decoded)
            callbacks = Callbacks(
                accept=options["accept_callback"],
                done=options["callback"],
                error=options["error_callback"],
                timeout=options["timeout_callback"],
            )
            limits = TimeLimits(hard_s=options.get("timeout"), soft_s=options.get("soft_timeout"))
            held, attempt = self.world.deliveries.hold(message, callbacks, limits=limits)
            self.taken.append(attempt)
            return held

        def terminate_job(self, pid: Any, signal: Any = None) -> None:
            self.world.deliveries.terminate(pid, signal)

    def consumes(self) -> None:
        """The worker has a consumer."""
        self.deliveries.consumer_ready(Consumer(self.eventer))

    def commands(self) -> list[Any]:
        """What was sent to the other side since the last look."""
        found = list(self.bridge._commands)
        self.bridge._commands.clear()
        return found

    def events(self) -> list[str]:
        """The kinds of what Flower was told so far."""
        return [kind for kind, _ in self.eventer.events]

    def take(self, event: Any) -> None:
        """An event has come over the bridge."""
        self.deliveries.take(event)

    def launched(self, one: Delivery) -> None:
        """Its pod stands in the record."""
        self.take(Launched(delivery=one.delivery, pod=POD))

    def started(self, one: Delivery, **fields: Any) -> None:
        """Its container runs."""
        given = {"started_at": START, "created_at": START, "owned_mono_s": time.monotonic(), **fields}
        self.take(Started(delivery=one.delivery, pod=POD, **given))

    def ended(self, one: Delivery, result: Any, **fields: Any) -> None:
        """Its outcome is known."""
        given = {"started_at": START, "ended_at": START + timedelta(seconds=5), "owned_mono_s": time.monotonic()}
        self.take(Ended(delivery=one.delivery, pod=POD, result=result, **{**given, **fields}))

    def stalled(self) -> None:
        """This process stood still, until just now."""
        long_ago = Moment(time.monotonic() - LIMIT_S - 5, time.monotonic() - LIMIT_S - 5)
        self.deliveries.stalls = StallDetector(long_ago)
        self.deliveries.stalls._turned = replace(long_ago, boot_mono_s=Moment.now().boot_mono_s - LIMIT_S - 5)

    def away(self, trouble: Exception = AWAY) -> None:
        """The result backend is not there."""
        Backend.trouble = trouble

    def back(self) -> None:
        """It answers again, and what was kept comes again."""
        Backend.trouble = None
        for _ in range(6):
            self.outbox._probe_mono_s = 0.0
            self.outbox._alone = [(0.0, entry) for _, entry in self.outbox._alone]
            self.deliveries.turn()
            if self.outbox._probing is not None:
                self.outbox._probing.exception(timeout=5)

    def stored(self, one: Delivery) -> Any:
        """(state, result) as the sender sees them."""
        result = self.app.AsyncResult(one.id)
        return result.state, result.result


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Nothing of one test is in another."""
    Backend.trouble, Backend.refused, Backend.tries = None, "", 0
    Backend.writes.clear()
    yield
    worker_state.reset_state()


@pytest.fixture
def world() -> Iterator[World]:
    """The deliveries of a worker whose result backend is there."""
    made = World()
    yield made
    made.close()


def success(one: Delivery, value: object = 42, **fields: Any) -> outcome.Outcome:
    """What the pod of a body that returned leaves."""
    return outcome.Outcome(
        id=one.id, retries=one.attempt.key.retries, state="SUCCESS", value=value, runtime_s=2.5, **fields
    )


def failure(one: Delivery, *, state: str = "FAILURE", **fields: Any) -> outcome.Outcome:
    """What the pod of a body that raised leaves."""
    given = {
        "type": "ValueError",
        "module": "builtins",
        "args": ["no"],
        "traceback": "Traceback: in the pod\n",
        **fields,
    }
    return outcome.Outcome(id=one.id, retries=0, state=state, failure=outcome.Failure(**given), runtime_s=2.5)


def lost(cause: str = "infrastructure") -> errors.PodFailed:
    """The end of a pod that left nothing."""
    return errors.PodFailed("the pod was evicted", {"reason": "Evicted", "cause": cause})


# --- a message is received


def test_the_attempt_has_what_the_message_and_its_task_ask_for(world: World) -> None:
    """The two halves know each other by the delivery alone."""
    plain = world.received()
    shaped = world.received("shaped", time_limit=60, soft_time_limit=30, expires=3600)
    assert (plain.attempt.timeout_s, plain.attempt.soft_timeout_s, plain.attempt.task_options) == (None, None, {})
    assert (plain.attempt.stores_result, plain.attempt.expires_at, plain.attempt.profile) == (True, None, world.profile)
    assert (shaped.attempt.timeout_s, shaped.attempt.soft_timeout_s) == (60, 30)
    assert shaped.attempt.task_options == {"pod_override": {"spec": {"nodeName": "n"}}}
    assert shaped.attempt.expires_at is not None
    assert plain.held.delivery == plain.attempt.delivery != shaped.attempt.delivery
    assert (plain.state, plain.message.acknowledged) == ("RECEIVED", False)


def test_limits_of_the_workers_command_line_are_those_of_tasks_that_say_nothing(world: World) -> None:
    """Each by itself."""
    world.deliveries.default_limits = TimeLimits(hard_s=100.0, soft_s=90.0)
    own = world.received(time_limit=60)
    assert (own.attempt.timeout_s, own.attempt.soft_timeout_s) == (60, 90.0)


def test_a_queue_that_no_rule_knows_has_the_defaults(world: World) -> None:
    """Somebody told the consumer to take it."""
    world.profile = QueueProfile(max_pods=3)
    assert world.received(queue="unknown").attempt.profile == QueueProfile()


@pytest.mark.parametrize(("backend", "name"), [(None, "double"), (BACKEND, "quiet")])
def test_what_stores_no_result_says_so(backend: str | None, name: str) -> None:
    """Nobody could tell later whether it ended: such a launch is not claimed."""
    world = World(backend)
    assert not world.received(name).attempt.stores_result
    world.close()


# --- launched, started


def test_the_message_is_acknowledged_once_the_pod_stands_in_the_record(world: World) -> None:
    """Once, and nobody is told that it has started."""
    one = world.received()
    assert one.state == "RECEIVED"
    world.launched(one)
    world.launched(one)
    assert (one.state, one.request.worker_pid, world.events()) == ("ACK", POD, [])


def test_a_task_that_acknowledges_late_keeps_its_message(world: World) -> None:
    """Until its outcome is stored."""
    one = world.received("late")
    world.launched(one)
    assert one.state == "RECEIVED"
    world.ended(one, success(one))
    assert one.state == "ACK"


def test_a_start_is_told_with_its_time_and_its_pod(world: World) -> None:
    """`STARTED` is stored only where the task asks for it."""
    one, tracked = world.received(), world.received("tracked")
    for each in (one, tracked):
        world.launched(each)
        world.started(each, created_at=START + timedelta(seconds=1))
    moment = (START + timedelta(seconds=1)).timestamp()
    assert [(kind, fields["pod"], fields["timestamp"]) for kind, fields in world.eventer.events] == [
        ("task-started", POD, moment)
    ] * 2
    assert (world.stored(one)[0], world.stored(tracked)[0]) == ("PENDING", "STARTED")
    assert world.stored(tracked)[1]["pod"] == POD


def test_a_start_is_sent_to_whoever_waits_where_results_are_messages() -> None:
    """As prefork does for `rpc://`, which has to know whose task it is; nothing else is held up."""
    world = World("rpc://")
    answers = world.connection.SimpleQueue("oid")
    one = world.received("tracked", reply_to="oid")
    world.launched(one)
    world.started(one)
    world.ended(one, success(one))
    told = [answers.get(timeout=1).payload["status"] for _ in range(2)]
    assert (told, world.outbox.is_away) == (["STARTED", "SUCCESS"], False)
    answers.clear()
    world.close()


def test_the_time_limit_counts_from_the_start_and_once(world: World) -> None:
    """A second sight of the same start begins no second one."""
    one = world.received(time_limit=600)
    world.launched(one)
    assert world.hub.timers == []
    for _ in range(2):
        world.started(one, started_at=datetime.now(UTC) - timedelta(seconds=60))
    (timer,) = world.hub.timers
    assert timer.after_s == pytest.approx(600 + builder.START_ALLOWANCE_S - 60, abs=5)


def test_while_the_result_backend_is_away_starts_are_told_and_not_stored(world: World) -> None:
    """Each try would block Celery's hub; after the first failure there is none."""
    ones = [world.received("tracked") for _ in range(3)]
    world.away()
    for one in ones:
        world.launched(one)
        world.started(one)
    assert world.events() == ["task-started"] * 3
    assert (Backend.tries, world.outbox.is_away) == (1, True)
    world.back()
    world.ended(ones[0], success(ones[0]))
    assert world.stored(ones[0]) == ("SUCCESS", 42)


def test_a_pod_with_the_results_credentials_stores_its_start_itself() -> None:
    """Nobody does it twice."""
    world = World(profile=QueueProfile(credentials="inherit"))
    one = world.received("tracked")
    world.launched(one)
    world.started(one)
    assert world.stored(one)[0] == "PENDING"
    world.close()


# --- ended


def test_an_outcome_is_stored_before_the_pod_may_go(world: World) -> None:
    """Celery tells of it with the pod's times."""
    one = world.received()
    world.launched(one)
    world.started(one)
    world.commands()
    world.ended(one, success(one))
    assert world.stored(one) == ("SUCCESS", 42)
    assert world.commands() == [Close(delivery=one.delivery, is_success=True)]
    kind, fields = world.eventer.events[-1]
    assert (kind, fields["result"], fields["runtime"]) == ("task-succeeded", "42", 2.5)
    assert fields["timestamp"] == pytest.approx((START + timedelta(seconds=5)).timestamp())


def test_a_failure_is_stored_as_the_pod_raised_it(world: World) -> None:
    """With its traceback."""
    one = world.received()
    world.launched(one)
    world.ended(one, failure(one))
    result = world.app.AsyncResult(one.id)
    assert (result.state, repr(result.result), result.traceback) == (
        "FAILURE",
        "ValueError('no')",
        "Traceback: in the pod\n",
    )
    assert world.commands() == [Close(delivery=one.delivery, is_success=False)]
    assert world.events()[-1] == "task-failed"


def test_what_ended_without_a_pod_is_acknowledged_and_explained(world: World) -> None:
    """Its template could not be read, say."""
    one = world.received()
    world.take(
        Ended(
            delivery=one.delivery,
            pod="",
            result=errors.PodFailed("no template", {"reason": "InvalidTemplate", "cause": "application"}),
            started_at=None,
            ended_at=None,
            owned_mono_s=time.monotonic(),
        )
    )
    state, result = world.stored(one)
    assert (state, one.state, result.details["reason"]) == ("FAILURE", "ACK", "InvalidTemplate")
    assert result.details["explanation"]


def test_a_second_end_of_a_delivery_is_nothing(world: World) -> None:
    """The first verdict stands."""
    one = world.received()
    world.ended(one, success(one, 1))
    world.commands()
    world.ended(one, failure(one))
    assert (world.stored(one), world.commands(), Backend.writes) == (("SUCCESS", 1), [], ["SUCCESS"])


def test_an_application_without_a_result_backend_ends_all_the_same() -> None:
    """Nothing is stored, and the pod may go."""
    world = World(None)
    one, two = world.received(), world.received("late")
    for each, result in ((one, success(one)), (two, failure(two))):
        world.launched(each)
        world.ended(each, result)
        assert world.commands() == [Close(delivery=each.delivery, is_success=each is one)]
    assert [one.state, two.state] == ["ACK", "ACK"]
    world.close()


def test_an_outcome_that_its_pod_stored_itself_is_only_announced() -> None:
    """And one that stands in the result backend already, though its pod left none."""
    world = World(profile=QueueProfile(credentials="inherit"))
    told, found = world.received(), world.received()
    world.ended(told, success(told, "42", is_stored=True))
    world.app.backend.store_result(found.id, 7, "SUCCESS")
    Backend.writes.clear()
    world.ended(found, lost())
    assert world.events() == ["task-succeeded", "task-succeeded"]
    assert (Backend.writes, world.stored(found)) == ([], ("SUCCESS", 7))
    world.close()


# --- the result backend is away


def test_outcomes_are_kept_in_order_until_the_result_backend_takes_them(world: World) -> None:
    """No pod goes before; after the first failure nothing more is tried."""
    ones = [world.received() for _ in range(3)]
    for one in ones:
        world.launched(one)
    world.away()
    for number, one in enumerate(ones):
        world.ended(one, success(one, number))
    assert (world.commands(), len(world.outbox), world.outbox.is_away) == ([], 3, True)
    tries = Backend.tries
    world.deliveries.turn()
    assert Backend.tries == tries
    world.back()
    assert [world.stored(one) for one in ones] == [("SUCCESS", number) for number in range(3)]
    assert world.commands() == [Close(delivery=one.delivery, is_success=True) for one in ones]
    assert world.outbox.is_idle


def test_an_outcome_that_cannot_be_stored_at_all_holds_up_no_other(world: World) -> None:
    """It has a trouble of its own, and comes again by itself."""
    bad, good = world.received(), world.received()
    Backend.refused = bad.id
    world.ended(bad, success(bad))
    world.ended(good, success(good))
    world.back()
    assert (world.stored(good), world.stored(bad)[0]) == (("SUCCESS", 42), "PENDING")
    assert world.commands() == [Close(delivery=good.delivery, is_success=True)]
    assert len(world.outbox) == 1
    Backend.refused = ""
    world.back()
    assert world.stored(bad) == ("SUCCESS", 42)


def test_a_fault_that_nobody_foresaw_keeps_the_outcome(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody else would bring it again: it is logged, and tried once more."""
    one = world.received()
    real = one.request._on_ack
    one.request._on_ack = lambda *args: {}["no such key"]
    world.ended(one, success(one))
    assert "KeyError" in caplog.text
    assert (world.stored(one)[0], world.commands()) == ("PENDING", [])
    one.request._on_ack = real
    world.back()
    assert world.stored(one) == ("SUCCESS", 42)
    assert world.commands() == [Close(delivery=one.delivery, is_success=True)]


def test_an_event_that_fails_takes_no_other_with_it(world: World) -> None:
    """Such as a launch whose acknowledgement fails."""
    bad, good = world.received(), world.received()
    bad.request._on_ack = lambda *args: {}["no such key"]
    world.launched(bad)
    world.launched(good)
    assert good.state == "ACK"


# --- put back


def test_a_lost_pod_counts_as_a_lost_worker_where_the_task_says_so(world: World) -> None:
    """Its message goes back once claim and pod are gone, and not before."""
    one = world.received("late-rejects")
    world.launched(one)
    world.ended(one, lost())
    assert (world.commands(), one.state, world.stored(one)[0]) == (
        [Requeue(delivery=one.delivery)],
        "RECEIVED",
        "PENDING",
    )
    world.take(Released(delivery=one.delivery))
    assert one.state == "REQUEUED"
    world.ended(one, success(one))
    assert world.stored(one)[0] == "PENDING", "the delivery is over, its message comes again as another one"


@pytest.mark.parametrize(("name", "cause"), [("late-rejects", "application"), ("late", "infrastructure")])
def test_other_ends_of_a_pod_are_failures(world: World, name: str, cause: str) -> None:
    """Whoever is at fault, unless the task says otherwise."""
    one = world.received(name)
    world.launched(one)
    world.ended(one, lost(cause))
    assert (world.stored(one)[0], world.commands()) == ("FAILURE", [Close(delivery=one.delivery, is_success=False)])


def test_a_body_may_reject_its_message_so_that_it_goes_back(world: World) -> None:
    """Only where it is not acknowledged yet."""
    late, early = world.received("late"), world.received()
    for one in (late, early):
        world.launched(one)
        world.ended(one, failure(one, state="REJECTED", type="Reject", module="celery.exceptions", args=["no", True]))
    assert world.commands() == [Requeue(delivery=late.delivery), Close(delivery=early.delivery, is_success=False)]
    world.take(Released(delivery=late.delivery))
    assert (late.state, early.state) == ("REQUEUED", "ACK")


# --- dropped, withdrawn, terminated


def test_what_another_dispatcher_has_ends_here_without_a_result(world: World) -> None:
    """Its message is done with."""
    one = world.received("late")
    world.take(Dropped(delivery=one.delivery, pod=""))
    assert (one.state, world.stored(one)[0], world.events(), world.commands()) == ("ACK", "PENDING", [], [])
    world.ended(one, success(one))
    assert world.stored(one)[0] == "PENDING"


def revoke(one: Delivery) -> None:
    """Somebody has revoked it."""
    worker_state.revoked.add(one.id)


def withdrawn(world: World, one: Delivery) -> None:
    """The other side gave it no pod."""
    world.take(Withdrawn(delivery=one.delivery, owned_mono_s=0.0))


def test_what_was_revoked_before_it_had_a_pod_is_stored_as_revoked(world: World) -> None:
    """By Celery's own request; its message is done with."""
    one = world.received()
    revoke(one)
    withdrawn(world, one)
    assert (world.stored(one)[0], one.state, world.events()) == ("REVOKED", "ACK", ["task-revoked"])
    withdrawn(world, one)
    assert world.events() == ["task-revoked"]


def test_a_revocation_that_cannot_be_stored_comes_again(world: World) -> None:
    """Its message would never be acknowledged otherwise, and whoever waits for it would wait for ever."""
    one, two = world.received(), world.received()
    world.away()
    for each in (one, two):
        revoke(each)
        withdrawn(world, each)
    assert (one.state, two.state, len(world.outbox)) == ("RECEIVED", "RECEIVED", 2)
    world.back()
    assert [(world.stored(each)[0], each.state) for each in (one, two)] == [("REVOKED", "ACK")] * 2


def test_a_revoked_task_is_ended_wherever_it_is(world: World) -> None:
    """One that is being launched is told so once its pod is known, and Flower hears of it."""
    running, launching = world.received(), world.received()
    world.launched(running)
    pool = World._Pool(world, [])
    for one in (running, launching):
        one.request.terminate(pool, signal="TERM")
    assert set(world.commands()) == {Terminate(delivery=running.delivery), Terminate(delivery=launching.delivery)}
    assert (world.stored(running)[0], world.stored(launching)[0]) == ("REVOKED", "PENDING")
    world.take(Launched(delivery=launching.delivery, pod="pod-2"))
    assert Terminate(delivery=launching.delivery) in world.commands()
    assert world.stored(launching)[0] == "REVOKED"
    assert world.events() == ["task-revoked"] * 2


def test_a_request_whose_pod_was_ended_is_forgotten(world: World) -> None:
    """Nothing of it will follow: a dispatcher that lives for months keeps none of them."""
    one = world.received()
    world.launched(one)
    one.request.terminate(World._Pool(world, []))
    assert len(world.deliveries._held) == 1
    world.take(Released(delivery=one.delivery))
    assert len(world.deliveries._held) == 0
    assert world.stored(one)[0] == "REVOKED"


def test_Celery_ends_a_pod_by_the_name_under_which_it_knows_it(world: World) -> None:
    """Another one stays."""
    one, other = world.received(), world.received()
    world.launched(one)
    world.take(Launched(delivery=other.delivery, pod="pod-2"))
    world.deliveries.terminate("pod-2")
    world.deliveries.terminate("nobody")
    assert world.commands() == [Terminate(delivery=other.delivery)]


# --- the hard time limit


def limited(world: World, name: str = "double") -> tuple[Delivery, Timer]:
    """One that runs with a hard time limit."""
    one = world.received(name, time_limit=1)
    world.launched(one)
    world.started(one)
    world.commands()
    return one, world.hub.timers[-1]


def test_at_the_hard_limit_the_failure_is_stored_and_then_the_pod_is_deleted(world: World) -> None:
    """How the pod ends does not count any more."""
    one, timer = limited(world)
    timer.fire()
    state, result = world.stored(one)
    assert (state, type(result).__name__) == ("FAILURE", "TimeLimitExceeded")
    assert world.commands() == [Terminate(delivery=one.delivery)]
    world.ended(one, success(one))
    assert world.stored(one)[0] == "FAILURE"
    assert world.commands() == [Close(delivery=one.delivery, is_success=False)]


def test_a_limit_that_passed_while_the_result_backend_is_away_is_stored_later(world: World) -> None:
    """The pod is deleted only then."""
    one, timer = limited(world)
    two, later = limited(world)
    world.away()
    timer.fire()
    later.fire()
    assert (world.commands(), len(world.outbox)) == ([], 2)
    world.back()
    assert [world.stored(each)[0] for each in (one, two)] == ["FAILURE"] * 2
    assert world.commands() == [Terminate(delivery=one.delivery), Terminate(delivery=two.delivery)]


def test_an_end_in_time_that_is_heard_of_late_counts(world: World) -> None:
    """Its outcome is being stored, whatever the clock says meanwhile."""
    one, timer = limited(world)
    world.away()
    world.ended(one, success(one))
    assert timer.is_cancelled
    world.take(deliveries.TimeIsUp(delivery=one.delivery, owned_mono_s=time.monotonic()))
    world.back()
    assert world.stored(one) == ("SUCCESS", 42)


def out_of_time(one: Delivery) -> outcome.Outcome:
    """The pod ended its body at the hard limit itself."""
    return failure(one, type="TimeLimitExceeded", module="billiard.exceptions", args=[1.0])


def test_a_pod_that_ended_its_body_at_the_limit_is_told_as_Celery_tells_it(world: World) -> None:
    """As of a process of its own pool: callbacks and signals, too."""
    heard: list[Any] = []

    def hear(task_id: str, **_: Any) -> None:
        heard.append(task_id)

    signals.task_failure.connect(hear)
    one, _ = limited(world)
    world.ended(one, out_of_time(one))
    signals.task_failure.disconnect(hear)
    state, result = world.stored(one)
    assert (state, type(result).__name__, heard) == ("FAILURE", "TimeLimitExceeded", [one.id])
    assert world.commands() == [Close(delivery=one.delivery, is_success=False)]


def test_such_an_end_is_kept_while_the_result_backend_is_away(world: World) -> None:
    """As any other outcome."""
    one, _ = limited(world)
    world.away()
    world.ended(one, out_of_time(one))
    assert world.commands() == []
    world.back()
    assert (world.stored(one)[0], world.commands()) == ("FAILURE", [Close(delivery=one.delivery, is_success=False)])


def test_a_message_that_is_not_acknowledged_at_a_time_out_goes_back(world: World) -> None:
    """Once claim and pod are gone."""
    one, _ = limited(world, "late-unacked")
    world.ended(one, out_of_time(one))
    assert world.commands() == [Requeue(delivery=one.delivery)]
    world.take(Released(delivery=one.delivery))
    again = world.connection.SimpleQueue("pods").get(timeout=1)
    assert again.headers[PUT_BACK_HEADER] == str(world.app.backend.get_task_meta(one.id)["date_done"])
    assert (again.headers["id"], one.state) == (one.id, "ACK")


# --- after a stall


def test_after_a_stall_the_owner_is_asked_before_anything_is_reported(world: World) -> None:
    """Another dispatcher may have reported it: ours, it goes on; another's, it ends without a result."""
    ours, others = world.received(), world.received()
    for one in (ours, others):
        world.launched(one)
    world.stalled()
    for one in (ours, others):
        world.ended(one, success(one), owned_mono_s=0.0)
    assert world.commands() == [ConfirmOwner(delivery=one.delivery, attempt_id=one.id) for one in (ours, others)]
    assert Backend.writes == []
    world.take(Owned(delivery=ours.delivery))
    world.take(Dropped(delivery=others.delivery, pod=POD))
    world.take(Owned(delivery=others.delivery))
    assert (world.stored(ours), world.stored(others)[0]) == (("SUCCESS", 42), "PENDING")
    assert world.commands() == [Close(delivery=ours.delivery, is_success=True)]


def test_all_that_waited_for_the_answer_is_done_in_order(world: World) -> None:
    """The limit that passed during the stall, and the end that followed: it ended in time, as far as is known."""
    one, timer = limited(world)
    world.stalled()
    world.take(replace(timer.args[0], owned_mono_s=0.0))
    world.ended(one, success(one), owned_mono_s=0.0)
    assert len(world.commands()) == 2
    world.take(Owned(delivery=one.delivery))
    assert (world.stored(one), Backend.writes) == (("SUCCESS", 42), ["SUCCESS"])
    assert world.commands() == [Close(delivery=one.delivery, is_success=True)]


def test_a_revocation_after_a_stall_is_asked_for_too(world: World) -> None:
    """With the attempt's id: the other side has it in flight no longer."""
    one = world.received()
    revoke(one)
    world.stalled()
    withdrawn(world, one)
    assert world.commands() == [ConfirmOwner(delivery=one.delivery, attempt_id=one.id)]
    assert world.stored(one)[0] == "PENDING"
    world.take(Owned(delivery=one.delivery))
    assert (world.stored(one)[0], one.state) == ("REVOKED", "ACK")


def test_a_start_that_is_seen_after_a_stall_is_not_told(world: World) -> None:
    """Its end may have been told already."""
    one = world.received("tracked")
    world.launched(one)
    world.stalled()
    world.started(one, owned_mono_s=0.0)
    assert (world.events(), world.stored(one)[0]) == ([], "PENDING")


# --- pods of a time before


def found(world: World, one: Attempt | None = None, *, is_ended: bool = False, **fields: Any) -> Found:
    """A pod of ours that nobody here knows."""
    message = builders.message(fields.pop("task_id", None), name=fields.pop("name", "double"), queue="pods", **fields)
    made = one or builders.attempt(message=message)
    pod = builders.pod_of(made, builders.ended() if is_ended else builders.running())
    pod["metadata"] |= {"name": f"pod-{made.id}", "namespace": "default"}
    return Found(pod=pod, is_ended=is_ended)


def test_a_pod_that_is_found_is_adopted_and_its_outcome_goes_its_way(world: World) -> None:
    """As if nothing had happened: its message was acknowledged long ago."""
    world.consumes()
    pod = found(world, task_id="adopted-1")
    world.take(pod)
    (adopt,) = world.commands()
    assert isinstance(adopt, Adopt)
    assert (adopt.attempt.id, adopt.pod) == ("adopted-1", pod.pod)
    assert [request.id for request in worker_state.active_requests] == ["adopted-1"]
    result = outcome.Outcome(id="adopted-1", retries=0, state="SUCCESS", value=1)
    world.take(
        Ended(
            delivery=adopt.attempt.delivery,
            pod="pod-adopted-1",
            result=result,
            started_at=START,
            ended_at=START,
            owned_mono_s=time.monotonic(),
        )
    )
    assert world.app.AsyncResult("adopted-1").state == "SUCCESS"


def test_pods_that_are_found_before_the_worker_consumes_wait(world: World) -> None:
    """A request needs a consumer."""
    world.take(found(world))
    assert world.commands() == []
    world.consumes()
    assert [type(command) for command in world.commands()] == [Adopt]
    world.consumes()
    assert world.commands() == []


def test_a_pod_whose_outcome_is_stored_is_cleaned_up_behind(world: World) -> None:
    """A dispatcher died between storing and deleting."""
    world.consumes()
    stored, fresh = found(world, task_id="stored-1", is_ended=True), found(world, task_id="fresh-1", is_ended=True)
    world.app.backend.store_result("stored-1", 1, "SUCCESS")
    world.take(stored)
    world.take(fresh)
    clean, adopt = world.commands()
    assert clean == Clean(pod=stored.pod, profile=world.profile, is_success=True)
    assert isinstance(adopt, Adopt)


def test_a_stored_retry_is_no_outcome_of_the_launch(world: World) -> None:
    """It may be an earlier one's; to send it again is harmless."""
    world.consumes()
    world.app.backend.store_result("retried-1", ValueError("x"), "RETRY")
    world.take(found(world, task_id="retried-1", is_ended=True))
    assert [type(command) for command in world.commands()] == [Adopt]


def test_an_ended_pod_waits_while_nobody_can_say_whether_its_outcome_is_stored(world: World) -> None:
    """And comes again as it was found."""
    world.consumes()
    world.away()
    for number in range(2):
        world.take(found(world, task_id=f"waits-{number}", is_ended=True))
    world.take(found(world, task_id="runs"))
    (adopt,) = world.commands()
    assert adopt.attempt.id == "runs"
    world.back()
    assert [command.attempt.id for command in world.commands()] == ["waits-0", "waits-1"]


def test_a_pod_whose_task_is_unknown_is_looked_at_again_and_the_others_go_on(world: World) -> None:
    """The application may be deployed later than its dispatcher."""
    world.consumes()
    world.take(found(world, name="tasks.of.tomorrow"))
    world.take(found(world))
    assert [type(command) for command in world.commands()] == [Adopt]
    (timer,) = world.hub.timers
    assert timer.after_s == deliveries.ADOPT_AGAIN_S

    @world.app.task(name="tasks.of.tomorrow", shared=False)
    def tomorrow(number: int) -> None: ...

    timer.fire()
    assert [type(command) for command in world.commands()] == [Adopt]


def test_a_pod_without_a_message_is_left_alone(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody knows what it is."""
    world.consumes()
    pod = found(world)
    del pod.pod["metadata"]["annotations"]["podyard.dev/message"]  # type: ignore[attr-defined]
    world.take(pod)
    assert (world.commands(), world.hub.timers) == ([], [])
    assert "cannot be adopted" in caplog.text


def test_what_comes_again_while_the_first_waits_is_acknowledged_with_it(world: World) -> None:
    """A Redis broker knows both by one tag: nothing would be left of an attempt that has no pod yet."""
    first = world.received(task_id="again-1")
    again = world.received(task_id="again-1")
    world.take(Dropped(delivery=again.delivery, pod=""))
    assert (first.state, again.state) == ("RECEIVED", "RECEIVED")
    world.launched(first)
    assert (first.state, again.state, world.events()) == ("ACK", "ACK", [])
    world.ended(first, success(first))
    assert world.stored(first) == ("SUCCESS", 42)


def test_what_comes_again_is_done_with_when_the_first_is_withdrawn(world: World) -> None:
    """Once that is stored."""
    first = world.received(task_id="again-2")
    again = world.received(task_id="again-2")
    world.take(Dropped(delivery=again.delivery, pod=""))
    revoke(first)
    world.away()
    withdrawn(world, first)
    assert (first.state, again.state) == ("RECEIVED", "RECEIVED")
    world.back()
    assert (world.stored(first)[0], first.state, again.state) == ("REVOKED", "ACK", "ACK")


def test_an_event_about_nobody_is_nothing(world: World) -> None:
    """It came too late."""
    for event in (
        Launched(delivery="x", pod="p"),
        Dropped(delivery="x", pod=""),
        Released(delivery="x"),
        Owned(delivery="x"),
        Withdrawn(delivery="x", owned_mono_s=0.0),
        deliveries.TimeIsUp(delivery="x", owned_mono_s=0.0),
    ):
        world.take(event)
    assert (world.commands(), world.events(), Backend.tries) == ([], [], 0)
