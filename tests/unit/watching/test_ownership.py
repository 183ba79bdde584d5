"""Whether an attempt is still this dispatcher's to report: by its pod, and where that is gone by its outcome."""

import asyncio
from typing import Any

import pytest

from dispatcher import errors
from dispatcher.attempts.attempt import Attempt, Pod
from dispatcher.attempts.registry import Attempts
from dispatcher.manifests import labels, names
from dispatcher.watching.ownership import Ownership
from tests import builders, fake_api, fast_time
from tests.cluster_side import OWNER, Answers


class World:
    """An attempt whose pod is in the cluster, and the two that are asked about it."""

    def __init__(self) -> None:
        self.api, self.answers = fake_api.FakeApi(), Answers()
        self.ownership = Ownership(self.api, owner=OWNER, questions=self.answers)  # type: ignore[arg-type]

    def launched(self, owner: str = OWNER, **fields: Any) -> Attempt:
        """Its pod has an owner."""
        attempts = Attempts(is_strict=True)
        made = builders.launched(attempts, **fields)
        pod = self.api.add_pod(builders.pod_of(made, labels={labels.OWNER_LABEL: names.label_value(owner)}))
        attempts.name_pod(made, Pod(namespace="default", name=made.pod.name, uid=pod["metadata"]["uid"]))
        return made

    def is_ours(self, made: Attempt) -> bool:
        """The answer, however long it takes."""
        return fast_time.run(self.ownership.is_ours(made))


@pytest.fixture
def world() -> World:
    """One for each test."""
    return World()


def test_a_pod_that_names_us_is_ours_whatever_is_stored(world: World) -> None:
    """A pod is deleted only after its outcome is stored: as long as it names us nobody else has reported it."""
    one = world.launched()
    world.answers.outcomes.add(one.id)
    assert world.is_ours(one)


@pytest.mark.parametrize("owner", ["another@host", "", "ME@HOST"])
def test_a_pod_that_names_another_is_not_ours(world: World, owner: str) -> None:
    """Nor one from which the label was taken."""
    assert not world.is_ours(world.launched(owner))


def test_a_pod_of_an_owner_with_a_long_name_is_known_by_its_label() -> None:
    """Labels are shortened: the same name gives the same label, another one never does."""
    owner, other = "dispatcher@" + "h" * 200, "dispatcher@" + "h" * 201
    world = World()
    world.ownership = Ownership(world.api, owner=owner, questions=world.answers)  # type: ignore[arg-type]
    assert world.is_ours(world.launched(owner))
    assert not world.is_ours(world.launched(other))


@pytest.mark.parametrize("is_stored", [True, False])
def test_of_a_pod_that_is_gone_the_outcome_decides(world: World, is_stored: bool) -> None:
    """Stored: another one has reported it. Else nobody has, and it is ours to say so."""
    one = world.launched()
    world.api.remove(one.pod.name)
    if is_stored:
        world.answers.outcomes.add(one.id)
    assert world.is_ours(one) is not is_stored


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_pod_under_its_name_with_another_uid_says_nothing(world: World, is_stored: bool) -> None:
    """Not even where it names us."""
    one = world.launched()
    world.api.remove(one.pod.name)
    world.api.add_pod(builders.pod_of(one, labels={labels.OWNER_LABEL: names.label_value(OWNER)}))
    if is_stored:
        world.answers.outcomes.add(one.id)
    assert world.is_ours(one) is not is_stored


def test_without_a_pod_the_api_server_is_not_asked(world: World) -> None:
    """An attempt that waits for its turn has none."""
    one = builders.queued(Attempts(is_strict=True))
    assert world.is_ours(one)
    assert world.api.calls["read_pod"] == 0


def test_what_stores_no_outcome_is_ours_as_long_as_nobody_has_its_pod(world: World) -> None:
    """The result backend is not asked: it could not know."""
    one = world.launched(stores_result=False)
    world.api.remove(one.pod.name)
    world.answers.trouble = RuntimeError("not asked")
    assert world.is_ours(one)


@pytest.mark.parametrize(
    "fault",
    [
        errors.ApiUnavailable("no answer"),
        errors.ApiError(403, "Forbidden", "no"),
        errors.ApiError(429, "TooManyRequests", "slow down", retry_after_s=60.0),
        errors.ApiError(500, "InternalError", "etcd"),
    ],
    ids=str,
)
def test_without_a_clear_answer_it_asks_until_there_is_one(world: World, fault: Exception) -> None:
    """Neither is anything given up, nor is anything reported twice."""
    mine, theirs = world.launched(), world.launched("another@host")
    for one, answer in ((mine, True), (theirs, False)):
        world.api.fail("read_pod", fault, times=20)
        assert world.is_ours(one) is answer
    assert world.api.calls["read_pod"] == 42


def test_a_result_backend_that_is_away_is_waited_for(world: World) -> None:
    """And what it says then counts."""
    one = world.launched()
    world.api.remove(one.pod.name)
    world.answers.outcomes.add(one.id)
    world.answers.trouble = ConnectionError("away")

    async def ask() -> bool:
        asking = asyncio.create_task(world.ownership.is_ours(one))
        await asyncio.sleep(300)
        assert not asking.done()
        world.answers.trouble = None
        return await asking

    assert not fast_time.run(ask())
