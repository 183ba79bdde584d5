"""Which of the waiting attempts may be created now, and what people read of the others."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from dispatcher.admission.admission import AHEAD, Admission, Bounds
from dispatcher.admission.fair_share import Need
from dispatcher.admission.holdoff import EVERYWHERE
from dispatcher.admission.slots import Slots
from dispatcher.admission.token_bucket import TokenBucket
from dispatcher.attempts import limits
from dispatcher.attempts.attempt import Attempt, Launch
from dispatcher.attempts.limits import BlockedReason, Limits
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.seen_pods import SeenPods
from dispatcher.options import QueueProfile
from tests import builders

START = builders.START
Allowed = Callable[[str, int], int | BlockedReason]


class Shares:
    """What this dispatcher may use of each limit."""

    def __init__(self, allowed: Allowed) -> None:
        self.allowed = allowed

    def freed(self) -> None:
        """Nobody waits for it."""


@pytest.fixture
def attempts() -> Attempts:
    """The attempts of a test, in which an illegal move raises."""
    return Attempts(is_strict=True)


def attempt(number: int, *, queue: str = "q", namespace: str = "n", max_pods: int = 100) -> Attempt:
    """One that was received as the `number`th."""
    made = builders.queued(
        REGISTRY[0],
        number,
        task_id=str(number),
        queue=queue,
        namespace=namespace,
        profile=QueueProfile(max_pods=max_pods),
    )
    REGISTRY[0].name_pod(made, replace(made.pod, name=f"pod-{number}"))
    return made


REGISTRY: list[Attempts] = [Attempts(is_strict=True)]
"""The registry of the test that runs."""


@pytest.fixture(autouse=True)
def _fresh_registry(attempts: Attempts) -> None:
    REGISTRY[0] = attempts


def admission(
    *waiting: Attempt,
    overall: int | None = None,
    by_namespace: Mapping[str, int] | None = None,
    allowed: Allowed = lambda _, limit: limit,
    rate: float = 0.0,
    burst: int = 1,
    own_limit: int = 1000,
    create_concurrency: int = 1000,
) -> Admission:
    """An admission before which those wait."""
    found = Admission(
        REGISTRY[0],
        slots=Slots(),
        shared=Shares(allowed),
        seen_pods=SeenPods(),
        bucket=TokenBucket(rate=rate, burst=burst),
        bounds=Bounds(
            limits=Limits(overall=overall, by_namespace=by_namespace or {}),
            own_limit=own_limit,
            create_concurrency=create_concurrency - AHEAD,
        ),
    )
    for one in waiting:
        found.add(one)
    return found


def answered(found: Admission, one: Attempt, *, is_in_doubt: bool = False, until_mono_s: float | None = None) -> None:
    """A create came to nothing: the attempt is parked, with its slot where its pod may have been made."""
    REGISTRY[0].park(one, BlockedReason("Refused", ""), Launch(manifest=b"{}", is_in_doubt=is_in_doubt))
    found.park(one, until_mono_s=until_mono_s)
    found.answered(one, keeps_slot=is_in_doubt)


def taken(found: Admission, now_mono_s: float = 0.0) -> list[str]:
    """All that may be created now."""
    out = []
    while (one := found.take(now_mono_s)) is not None:
        out.append(one.id)
    return out


def held(found: Admission, one: Attempt, now_mono_s: float = 0.0) -> BlockedReason:
    """Why it waits."""
    hold = found.blocked_reason(one, now_mono_s)
    assert hold is not None
    return hold


def test_a_queue_has_no_more_pods_than_its_limit() -> None:
    """The next goes when one has ended, and until then it says what holds it."""
    ones = [attempt(number, max_pods=2) for number in range(4)]
    found = admission(*ones)
    assert taken(found) == ["0", "1"]
    text = "max_pods of the queue q is 2: 2 pods of this dispatcher, 0 slots of other dispatchers"
    assert held(found, ones[2]) == BlockedReason("QueueLimit", text)
    found.answered(ones[0])  # nothing was made
    assert taken(found) == ["2"]


@pytest.mark.parametrize(
    ("bounds", "reason", "text"),
    [
        ({"overall": 1}, "OverallLimit", "kubernetes.max_pods is 1"),
        ({"by_namespace": {"n": 1}}, "NamespaceLimit", "max_pods of the namespace n is 1"),
        ({"own_limit": 1}, "DispatcherLimit", "this dispatcher may have 1 pods, and has 1"),
        ({"create_concurrency": 1}, "CreatesUnderWay", "1 creates have not been answered yet"),
        ({"rate": 1.0}, "CreateRate", "kubernetes.create_rate is reached: 1 a second, 1 at once"),
    ],
)
def test_each_limit_says_that_it_is_the_one(bounds: dict[str, Any], reason: str, text: str) -> None:
    """With its setting and its number."""
    ones = [attempt(0), attempt(1)]
    found = admission(*ones, **bounds)
    assert taken(found) == ["0"]
    assert held(found, ones[1]).reason == reason
    assert held(found, ones[1]).text.startswith(text)


def test_what_other_dispatchers_hold_is_told() -> None:
    """How much of the limit is theirs."""
    ones = [attempt(number, max_pods=10) for number in range(5)]
    found = admission(*ones, allowed=lambda _, limit: limit - 7)
    assert taken(found) == ["0", "1", "2"]
    assert held(found, ones[3]).text.endswith("3 pods of this dispatcher, 7 slots of other dispatchers")


def test_a_share_that_is_not_known_holds() -> None:
    """And says why it is not."""
    unknown = BlockedReason("LimitsUnknown", "the API server is away")
    one = attempt(0)
    found = admission(one, allowed=lambda *_: unknown)
    assert (taken(found), held(found, one)) == ([], unknown)


def test_a_namespace_that_pauses_holds_no_other_one_of_its_queue() -> None:
    """What was received later goes first, then, and the order within the namespace is kept."""
    ones = [attempt(number, namespace="ab"[number % 2]) for number in range(6)]
    found = admission(*ones)
    quota = BlockedReason("QuotaExceeded", "exceeded quota")
    found.holdoff.pause("a", quota, begun_mono_s=0.0, now_mono_s=1.0, wanted_s=5.0, jitter=0.0)
    assert taken(found, 2.0) == ["1", "3", "5"]
    assert held(found, ones[0], 2.0) == quota
    assert found.again_in_s(2.0) == 4.0
    assert taken(found, 6.0) == ["0"], "one goes ahead"
    found.created(ones[0], uid="u", now_mono_s=6.1)
    REGISTRY[0].launched(ones[0], ones[0].pod)
    found.answered(ones[0])
    found.holdoff.worked("a", now_mono_s=6.1)
    assert taken(found, 6.1) == ["2", "4"]


def test_a_stop_holds_everybody() -> None:
    """429 and 401 are about us, not about a namespace."""
    busy = BlockedReason("TooManyRequests", "slow down")
    one = attempt(0)
    found = admission(one)
    found.holdoff.pause(EVERYWHERE, busy, begun_mono_s=0.0, now_mono_s=0.0, wanted_s=2.0, jitter=0.0)
    assert held(found, one, 1.0) == busy
    assert taken(found, 2.0) == ["0"]


def test_queues_take_turns_at_the_overall_limit() -> None:
    """A long line of one queue does not keep the other from its part."""
    long = [attempt(number, queue="long") for number in range(4)]
    short = [attempt(number, queue="short") for number in range(10, 12)]
    assert taken(admission(*long, *short, overall=4)) == ["0", "10", "1", "11"]


def test_a_full_queue_holds_no_other_queue() -> None:
    """Its limit is its own."""
    ones = [attempt(0, queue="full", max_pods=1), attempt(1, queue="full", max_pods=1), attempt(2, queue="free")]
    assert taken(admission(*ones)) == ["0", "2"]


def test_what_may_exist_keeps_its_slot() -> None:
    """A create without an answer may have worked: nobody else gets its slot, and it needs no other one."""
    first, second = attempt(0, max_pods=1), attempt(1, max_pods=1)
    found = admission(first, second)
    assert found.take(0.0) is first
    answered(found, first, is_in_doubt=True)
    assert held(found, second).reason == "QueueLimit"
    assert found.take(0.0) is first
    found.answered(first)  # nothing was made
    assert found.take(0.0) is second


def test_what_is_withdrawn_leaves_no_slot_behind() -> None:
    """Not even where a create of it was in doubt."""
    one = attempt(0)
    found = admission(one)
    assert found.take(0.0) is one
    answered(found, one, is_in_doubt=True)
    assert found.withdraw(one)
    assert found.slots.count(limits.ALL) == 0
    assert not found.withdraw(one)


def test_what_waits_by_itself_holds_nobody_and_comes_back_to_its_place() -> None:
    """Ahead of what was received after it."""
    first, second, third = attempt(0), attempt(1), attempt(2)
    found = admission(first, second, third, overall=1)
    assert found.take(0.0) is first
    answered(found, first, until_mono_s=2.0)
    assert found.take(0.5) is second
    assert found.again_in_s(0.5) == 1.5
    found.answered(second)
    assert found.take(2.0) is first


def test_what_waits_by_itself_can_be_withdrawn() -> None:
    """With the slot that it kept."""
    one = attempt(0)
    found = admission(one)
    assert found.take(0.0) is one
    answered(found, one, is_in_doubt=True, until_mono_s=2.0)
    assert found.withdraw(one)
    assert found.slots.count(limits.ALL) == 0
    assert found.take(2.0) is None
    assert found.again_in_s(2.0) is None


def test_the_rate_is_kept_and_waited_for() -> None:
    """No longer than the next token takes."""
    ones = [attempt(number) for number in range(4)]
    found = admission(*ones, rate=2.0, burst=2)
    assert taken(found, 10.0) == ["0", "1"]
    assert found.again_in_s(10.0) == 0.5
    assert taken(found, 10.5) == ["2"]


def test_what_could_use_no_slot_wants_none() -> None:
    """Others need not leave room for what a pause or the limit of its queue holds."""
    full = [attempt(number, queue="full", max_pods=2) for number in range(9)]
    paused = [attempt(number, namespace="paused") for number in range(20, 25)]
    found = admission(*full, *paused, overall=100)
    found.holdoff.pause(
        "paused", BlockedReason("QuotaExceeded", ""), begun_mono_s=0.0, now_mono_s=0.0, wanted_s=9.0, jitter=0.0
    )
    assert taken(found, 1.0) == ["0", "1"]
    needs = found.needs(START + timedelta(seconds=12), 1.0)
    assert needs["all"] == Need(used=2, waits=0, oldest_s=10.0)
    assert needs["queue/full"] == Need(used=2, waits=7, oldest_s=10.0)
    assert "queue/q" not in needs


def test_of_each_key_the_limit_is_found() -> None:
    """None where nobody set one."""
    bounds = Limits(overall=7, by_namespace={"n": 3})
    found = {key: None if limits.queue_of(key) else bounds.of_key(key) for key in limits.keys("four", "n")}
    assert found == {"queue/four": None, "namespace/n": 3, "all": 7}
    assert Limits().of_key("namespace/n") is None
    assert Limits().of_key("all") is None


def test_nothing_is_created_where_nobody_would_see_it() -> None:
    """A namespace whose pods may not be listed holds its attempts, by name, and no other namespace."""
    blind, other = attempt(0, namespace="blind"), attempt(1)
    found = admission(blind, other)
    found._seen_pods.forbidden["blind"] = "pods is forbidden"
    assert taken(found) == ["1"]
    assert held(found, blind).reason == "NotPermitted"
    assert "pods is forbidden" in held(found, blind).text
    del found._seen_pods.forbidden["blind"]
    assert taken(found) == ["0"]
