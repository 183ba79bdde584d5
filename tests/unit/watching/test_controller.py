"""The controller: what each command does in each state, and what is left when its loops end."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from dispatcher import errors
from dispatcher.attempts import states
from dispatcher.attempts.attempt import Attempt, Closed
from dispatcher.attempts.celery_side import (
    Adopt,
    Broken,
    Clean,
    Close,
    Command,
    ConfirmOwner,
    Dropped,
    Ended,
    Launched,
    Owned,
    Released,
    Requeue,
    SetLimit,
    Submit,
    Terminate,
    Withdrawn,
)
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.states import State
from dispatcher.launching.claim_client import ClaimStore
from dispatcher.manifests import names
from dispatcher.options import Options, QueueProfile
from dispatcher.policy import Policy
from dispatcher.watching import controller, wiring
from dispatcher.watching.controller import Controller
from tests import builders, fake_api, fast_time
from tests.cluster_side import OWNER, Answers, CelerySide
from tests.memory_claim_store import MemoryClaimStore


class World:
    """A controller that has begun at a fake API server; its loops run only where a test runs them."""

    def __init__(self, *, is_connected: bool = True, claim_store: ClaimStore | None = None, **more: Any) -> None:
        self.api, self.celery, self.answers = fake_api.FakeApi(), CelerySide(), Answers()
        options = Options(profile_for=lambda queue: QueueProfile(), app_path="tests.app:app", image="i", **more)
        self.one = Controller(
            options, owner=OWNER, limit=10, celery=self.celery, questions=self.answers, claim_store=claim_store
        )
        self.attempts: Attempts = self.one._attempts
        self.attempts._is_strict = True
        if is_connected:
            self.connect()

    def connect(self) -> None:
        """The API server has answered."""
        self.one._begin(wiring.wire(self.api, self.one._shared, limit=10))  # type: ignore[arg-type]

    def obey(self, command: Command) -> None:
        """Carries a command out, and what follows at once."""
        self.one._handle(command)
        self.look()

    def look(self) -> None:
        """What the reconciler does with what has changed."""
        for attempt in self.attempts.changed.take_now():
            self.one._reconciler.look(attempt)

    async def settle(self) -> None:
        """What was begun beside is done, and looked at."""
        while self.one._background._tasks:
            await asyncio.wait(list(self.one._background._tasks), timeout=5)
        self.look()

    def in_state(self, state: State, **fields: Any) -> Attempt:
        """An attempt in a state, with its pod in the cluster where it has one."""
        made = builders.in_state(self.attempts, state, **fields)
        if made.pod.uid is not None:
            pod = builders.pod_of(made, labels={"podyard.dev/owner": names.label_value(OWNER)})
            self.api.add_pod(pod)
            self.api.pods["default", made.pod.name]["metadata"]["uid"] = made.pod.uid
        self.attempts.changed.take_now()
        return made


def using(test: Callable[[World], Awaitable[Any]], **world: Any) -> Any:
    """Runs a test in a world of its own."""

    async def run() -> Any:
        made = World(**world)
        try:
            return await asyncio.wait_for(test(made), 10)
        finally:
            await made.one._background.cancel()

    return asyncio.run(run())


def test_what_is_submitted_twice_goes_on_once() -> None:
    """The second delivery ends without a result."""

    async def test(world: World) -> None:
        one, two = builders.attempt(task_id="a"), builders.attempt(task_id="a")
        world.obey(Submit(attempt=one))
        world.obey(Submit(attempt=two))
        assert list(world.attempts) == [one]
        assert world.celery.posted == [Dropped(delivery=two.delivery, pod="")]

    using(test)


def test_what_cannot_be_launched_ends_at_once() -> None:
    """With the reason, before it waits."""

    async def test(world: World) -> None:
        one = builders.attempt(profile=QueueProfile(template="/no/such/template.yaml"))
        world.obey(Submit(attempt=one))
        (ended,) = world.celery.posted
        assert isinstance(ended, Ended)
        assert "/no/such/template.yaml" in str(ended.result)

    using(test)


def test_before_the_first_answer_attempts_wait_and_say_why() -> None:
    """They are taken up then."""

    async def test(world: World) -> None:
        one = builders.attempt()
        world.obey(Submit(attempt=one))
        assert one.blocked is not None
        assert one.blocked.reason == "ApiServerUnavailable"
        world.connect()
        assert (one.state, one.blocked, one.namespace) == (State.QUEUED, None, "default")

    using(test, is_connected=False)


def test_a_pod_that_was_found_is_adopted_once() -> None:
    """As it is now; a second find is dropped."""

    async def test(world: World) -> None:
        one, two = builders.attempt(task_id="a"), builders.attempt(task_id="a")
        world.attempts.name_pod(one, builders.Pod(namespace="default", name="pod-a"))
        pod = builders.pod_of(one, builders.running())
        world.obey(Adopt(attempt=one, pod=pod))
        world.obey(Adopt(attempt=two, pod=pod))
        assert (one.state, one.pod.uid) == (State.RUNNING, "uid-a")
        dropped = [event for event in world.celery.posted if isinstance(event, Dropped)]
        assert dropped == [Dropped(delivery=two.delivery, pod="pod-a")]
        assert not [event for event in world.celery.posted if isinstance(event, Launched)], "Celery has it already"

    using(test)


@pytest.mark.parametrize("state", [State.QUEUED, State.PARKED, State.EXPIRING_LAUNCH])
def test_what_is_terminated_before_its_pod_is_withdrawn(state: State) -> None:
    """Celery's request says so itself."""

    async def test(world: World) -> None:
        one = world.in_state(state)
        world.obey(Terminate(delivery=one.delivery))
        assert one.closed is Closed.WITHDRAWN
        assert [type(event) for event in world.celery.posted] == [Withdrawn]
        world.obey(Terminate(delivery=one.delivery))
        assert len(world.celery.posted) == 1

    using(test)


@pytest.mark.parametrize("state", [State.QUEUED, State.PARKED, State.EXPIRING_LAUNCH])
def test_what_is_terminated_while_its_pod_may_exist_is_looked_for_first(state: State) -> None:
    """One whose create had no answer, long ago or just now: what runs is not withdrawn."""

    async def test(world: World) -> None:
        one = world.in_state(state)
        world.attempts.prepare(one, replace(one.launch, doubted_mono_s=1.0))
        world.obey(Terminate(delivery=one.delivery))
        assert (one.state, world.celery.posted) == (state, [])

    using(test)


@pytest.mark.parametrize("state", sorted(states.LIVE))
def test_what_is_terminated_with_a_pod_loses_it(state: State) -> None:
    """Celery stores the result itself: it is only told that nothing will follow, so that it forgets the request."""

    async def test(world: World) -> None:
        one = world.in_state(state)
        world.obey(Terminate(delivery=one.delivery))
        assert one.closed is Closed.TERMINATED
        await world.settle()
        assert (world.api.pods, world.celery.posted) == ({}, [Released(delivery=one.delivery)])

    using(test)


@pytest.mark.parametrize("state", [State.LAUNCHING, State.ENDED])
def test_a_termination_that_comes_in_between_changes_nothing(state: State) -> None:
    """A launch is asked again once its pod is known; what has ended is being stored."""

    async def test(world: World) -> None:
        one = world.in_state(state)
        world.obey(Terminate(delivery=one.delivery))
        assert one.state is state

    using(test)


def test_a_pod_goes_when_its_outcome_is_stored() -> None:
    """Not before; and its last events are no news."""

    async def test(world: World) -> None:
        one = world.in_state(State.ENDED)
        world.look()
        await world.settle()
        assert len(world.api.pods) == 1
        world.obey(Close(delivery=one.delivery, is_success=True))
        await world.settle()
        assert (one.closed, world.api.pods) == (Closed.STORED, {})
        parts = world.one._parts
        assert parts is not None
        assert parts.seen_pods.is_closed(one.pod.uid or "")

    using(test)


def test_a_pod_that_is_kept_is_marked_as_done() -> None:
    """It is out of every selector of ours."""

    async def test(world: World) -> None:
        one = world.in_state(State.ENDED, profile=QueueProfile(delete="never"))
        world.obey(Close(delivery=one.delivery, is_success=True))
        await world.settle()
        (pod,) = world.api.pods.values()
        assert pod["metadata"]["labels"]["podyard.dev/done"] == "true"

    using(test)


def test_a_requeue_frees_the_name_whatever_the_policy() -> None:
    """The message is put back only then."""

    async def test(world: World) -> None:
        one = world.in_state(State.ENDED, profile=QueueProfile(delete="never"))
        world.obey(Requeue(delivery=one.delivery))
        await world.settle()
        assert world.api.pods == {}
        assert Released(delivery=one.delivery) in world.celery.posted
        parts = world.one._parts
        assert parts is not None
        assert parts.seen_pods.is_requeued(one.pod.uid or "")

    using(test)


@pytest.mark.parametrize(
    ("owner", "is_there", "has_outcome", "answer"),
    [
        (OWNER, True, False, Owned),
        ("another@host", True, False, Dropped),
        (OWNER, False, False, Owned),
        (OWNER, False, True, Dropped),
    ],
)
def test_after_a_stall_the_owner_is_asked_for(owner: str, is_there: bool, has_outcome: bool, answer: type) -> None:
    """Of the pod; where there is none, of the result backend."""

    async def test(world: World) -> None:
        one = world.in_state(State.RUNNING)
        pod = world.api.pods["default", one.pod.name]
        pod["metadata"]["labels"]["podyard.dev/owner"] = names.label_value(owner)
        if not is_there:
            world.api.remove(one.pod.name)
        if has_outcome:
            world.answers.outcomes.add(one.id)
        world.obey(ConfirmOwner(delivery=one.delivery, attempt_id=one.id))
        await world.settle()
        answers = [type(event) for event in world.celery.posted if isinstance(event, Owned | Dropped)]
        assert answers == [answer]
        assert (one.closed is Closed.DROPPED) is (answer is Dropped)

    using(test)


@pytest.mark.parametrize(("has_outcome", "answer"), [(False, Owned), (True, Dropped)])
@pytest.mark.parametrize("is_connected", [True, False])
def test_what_was_withdrawn_is_ours_unless_an_outcome_is_stored(
    has_outcome: bool, answer: type, is_connected: bool
) -> None:
    """It is in flight no longer, and its request still waits for an answer after a stall."""

    async def test(world: World) -> None:
        one = world.in_state(State.QUEUED)
        world.obey(Terminate(delivery=one.delivery))
        if has_outcome:
            world.answers.outcomes.add(one.id)
        world.obey(ConfirmOwner(delivery=one.delivery, attempt_id=one.id))
        await world.settle()
        assert [type(event) for event in world.celery.posted] == [Withdrawn, answer]
        assert world.celery.posted[-1].delivery == one.delivery

    using(test, is_connected=is_connected)


async def loops_end(world: World) -> None:
    """As they do where one of them fails, or the API server is given up."""
    world.one._parts = world.one._reconciler.executors = None
    await world.one._background.cancel()


@pytest.mark.parametrize("is_withdrawn", [False, True])
def test_what_was_asked_for_is_answered_once_the_loops_begin_anew(is_withdrawn: bool) -> None:
    """Celery's side waits for the answer, and asks no second time."""

    async def test(world: World) -> None:
        one = world.in_state(State.QUEUED if is_withdrawn else State.RUNNING)
        if is_withdrawn:
            world.attempts.close(one, Closed.WITHDRAWN)
        world.answers.trouble = ConnectionError("away")
        gate = world.api.hold("read_pod")
        world.obey(ConfirmOwner(delivery=one.delivery, attempt_id=one.id))
        await asyncio.sleep(0.01)
        await loops_end(world)
        assert not [event for event in world.celery.posted if isinstance(event, Owned)]
        world.answers.trouble = None
        gate.set()
        world.connect()
        await world.settle()
        assert [event for event in world.celery.posted if isinstance(event, Owned)] == [Owned(delivery=one.delivery)]
        assert world.one._unanswered == {}

    using(test)


def test_a_message_is_requeued_though_the_loops_ended_meanwhile() -> None:
    """Its claim is released then."""
    store = MemoryClaimStore()

    async def test(world: World) -> None:
        one = world.in_state(State.ENDED)
        store.trouble = ConnectionError("away")
        world.obey(Requeue(delivery=one.delivery))
        await asyncio.sleep(0.01)
        await loops_end(world)
        assert Released(delivery=one.delivery) not in world.celery.posted
        store.trouble = None
        world.connect()
        await world.settle()
        assert (one.closed, world.celery.posted.count(Released(delivery=one.delivery))) == (Closed.STORED, 1)

    using(test, claim_store=store)


def test_a_pod_that_cannot_be_ended_now_is_ended_once_there_is_an_API_server() -> None:
    """Its outcome would take the place of the revocation otherwise."""

    async def test(world: World) -> None:
        one = world.in_state(State.RUNNING)
        await loops_end(world)
        world.obey(Terminate(delivery=one.delivery))
        assert one.state is State.RUNNING
        world.connect()
        await world.settle()
        assert (one.closed, world.api.pods) == (Closed.TERMINATED, {})
        assert world.celery.posted[-1] == Released(delivery=one.delivery)

    using(test)


def test_a_pod_of_a_time_before_is_cleaned_up_behind() -> None:
    """No attempt is needed for it."""

    async def test(world: World) -> None:
        one = world.in_state(State.ENDED)
        world.attempts.close(one, Closed.STORED)
        pod = world.api.pods["default", one.pod.name]
        world.obey(Clean(pod=pod, profile=QueueProfile(), is_success=True))
        await world.settle()
        assert world.api.pods == {}

    using(test)


def test_a_command_about_nobody_does_nothing() -> None:
    """It came too late."""

    async def test(world: World) -> None:
        for command in (Terminate(delivery="x"), Requeue(delivery="x")):
            world.obey(command)
        world.obey(Close(delivery="x", is_success=True))
        world.obey(SetLimit(limit=3))
        parts = world.one._parts
        assert parts is not None
        assert (world.celery.posted, parts.capacity.admission.own_limit) == ([], 3)

    using(test)


def test_loops_that_end_are_begun_anew_and_what_was_under_way_is_taken_up() -> None:
    """A launch that was interrupted may have made its pod; a deadline is looked at again; an outcome read again."""

    async def test(world: World) -> None:
        launching, expiring = world.in_state(State.LAUNCHING), world.in_state(State.EXPIRING_POD)
        reading = world.in_state(State.PENDING)
        world.attempts.saw(reading, builders.seen(reading, builders.ended(1)), uid=reading.pod.uid or "")
        world.attempts.end(reading, controller.endings.of_pod())
        world.one._parts = None
        world.connect()
        assert (launching.state, launching.launch.is_in_doubt) == (State.QUEUED, True)
        assert expiring.state is State.PENDING
        await world.settle()
        assert reading.ending is not None
        assert reading.ending.result is not None

    using(test)


def test_after_several_faults_it_gives_up_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever supervises the process begins anew."""
    monkeypatch.setattr(controller, "AGAIN_S", 0.0)

    async def test(world: World) -> None:
        tries = 0

        async def commands() -> Any:
            nonlocal tries
            tries += 1
            raise RuntimeError("a fault that nobody foresaw")

        world.celery.commands = commands  # type: ignore[method-assign]
        running = asyncio.create_task(world.one.run())
        while not world.celery.posted:  # a state of the world
            await asyncio.sleep(0.01)
        assert world.celery.posted == [Broken(why="RuntimeError: a fault that nobody foresaw")]
        assert tries == controller.FAULTS
        assert not running.done()
        running.cancel()
        await asyncio.wait([running])

    using(test, is_connected=False)


def add_pod(world: World, namespace: str) -> None:
    """A pod of our deployment that another dispatcher has launched."""
    pod = builders.pod_of(builders.attempt(), labels={"podyard.dev/deployment": "default"}, name="p")
    world.api.add_pod(pod, namespace)


def watched(world: World) -> set[str]:
    """The namespaces that are watched."""
    assert world.one._parts is not None
    return set(world.one._parts.seen_pods.watched)


def running(work: Callable[[World], Awaitable[Any]], test: Callable[[World], Awaitable[Any]], **more: Any) -> None:
    """Runs a test beside a loop of the controller, on a clock that jumps."""

    async def run() -> None:
        world = World(**more)
        loop = asyncio.ensure_future(work(world))
        try:
            await test(world)
        finally:
            loop.cancel()
            await asyncio.wait([loop])
            assert world.one._parts is not None
            ending = asyncio.create_task(world.one._parts.watcher.run())
            await asyncio.sleep(0)
            ending.cancel()
            await asyncio.wait([ending])

    fast_time.run(run())


def find_namespaces(world: World) -> Awaitable[None]:
    """The loop that looks for them."""
    assert world.one._parts is not None
    return world.one._find_namespaces(world.one._parts)


ANY_NAMESPACE = Policy(namespaces=("team-*", "shared"))


@pytest.mark.parametrize("is_away", [False, True])
def test_where_tasks_choose_their_namespace_those_with_pods_of_ours_are_watched(is_away: bool) -> None:
    """Also such as another dispatcher used first, which is gone since; an API server in trouble is asked again."""

    async def test(world: World) -> None:
        add_pod(world, "team-a")
        if is_away:
            world.api.fail("list_pods", errors.ApiUnavailable("x"), errors.ApiError(500, "I", "x"), times=5)
        await asyncio.sleep(controller.NAMESPACES_S)
        assert watched(world) == {"default", "shared", "team-a"}
        add_pod(world, "team-b")
        await asyncio.sleep(2 * controller.NAMESPACES_S)
        assert watched(world) == {"default", "shared", "team-a", "team-b"}

    running(find_namespaces, test, policy=ANY_NAMESPACE)


def test_a_cluster_that_may_not_be_listed_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """And asked for seldom."""

    async def test(world: World) -> None:
        world.api.fail("list_pods", errors.ApiError(403, "Forbidden", "no"), times=1000)
        await asyncio.sleep(3600)

    running(find_namespaces, test, policy=ANY_NAMESPACE)
    said = [record for record in caplog.records if "were not looked for" in record.getMessage()]
    assert len(said) == 1


def test_where_namespaces_are_named_the_cluster_is_not_listed() -> None:
    """An account that is bound to some namespaces may not."""

    async def test(world: World) -> None:
        add_pod(world, "team-a")
        await asyncio.sleep(3600)
        assert watched(world) == {"default", "shared"}

    running(find_namespaces, test, policy=Policy(namespaces=("shared",)))


def test_permissions_are_asked_for_until_there_is_an_answer() -> None:
    """What is missing is told by name; a server that does not answer at the start has not said that all is well."""

    async def test(world: World) -> None:
        world.api.denied = {("create", "pods"), ("get", "pods/log")}
        world.api.fail("may", errors.ApiUnavailable("x"), errors.ApiError(429, "TooManyRequests", "x"))
        await asyncio.sleep(60)
        assert world.one.stats()["missing-permissions"] == ["default: create pods", "default: get pods/log"]

    running(lambda world: world.one._check_permissions(world.api), test)  # type: ignore[arg-type]
