"""Dispatchers that live never exceed a limit together, whatever the API server answers, and whoever comes or goes."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher import errors
from dispatcher.admission import shared_limits
from dispatcher.admission.fair_share import Need
from dispatcher.admission.shared_limits import Pace, SharedLimits
from dispatcher.attempts.limits import BlockedReason
from dispatcher.manifests import labels
from tests import fake_api, fast_time

LIMIT = 10
KEY = "all"
PACE = Pace()


class Yard:
    """Dispatchers at one API server, each with its own demand and its own pods."""

    def __init__(self) -> None:
        self.api = fake_api.FakeApi()
        self.needs: dict[str, Need] = {}
        self.used: dict[str, int] = {}

    def join(self, name: str, *, waits: int = 100, deployment: str = "d") -> SharedLimits:
        """One that wants so many pods."""
        self.needs[name] = Need(waits=waits)
        return SharedLimits(self.api, namespace="n", deployment=deployment, owner=name)  # type: ignore[arg-type]

    def demand(self, name: str) -> Callable[[], Mapping[str, tuple[int, Need]]]:
        """What it asks for now."""
        return lambda: {KEY: (LIMIT, self.needs[name])}

    async def turn(self, *limits: SharedLimits) -> None:
        """A turn of each."""
        for one in limits:
            await one.turn(self.demand(one._me))

    def config_map(self) -> dict[str, Any]:
        """The one object."""
        (found,) = self.api.config_maps.values()
        return found


def using(test: Callable[[Yard], Awaitable[Any]]) -> None:
    """Runs a test in a yard of its own."""

    async def run() -> None:
        await test(Yard())

    fast_time.run(run())


def allowed(one: SharedLimits, key: str = KEY) -> int | str:
    """How many pods it may have; the reason where it does not know."""
    found = one.allowed(key, LIMIT)
    return found.reason if isinstance(found, BlockedReason) else found


def pod(owner: str, *, phase: str = "Running") -> dict[str, Any]:
    """A pod of another dispatcher, as a list shows it."""
    metadata = {
        "namespace": "n",
        "labels": {labels.OWNER_LABEL: owner},
        "annotations": {labels.QUEUE_ANNOTATION: "q"},
    }
    return {"metadata": metadata, "status": {"phase": phase}}


def test_before_anything_was_written_nothing_may_be_created() -> None:
    """And the wait says why."""

    async def test(yard: Yard) -> None:
        one = yard.join("a")
        held = one.allowed(KEY, LIMIT)
        assert held == BlockedReason(
            "LimitsUnknown", "what other dispatchers hold of the limits is not known: nothing was written yet"
        )

    using(test)


def test_who_is_alone_has_all_of_each_limit() -> None:
    """Of keys, too, that it has not asked for."""

    async def test(yard: Yard) -> None:
        one = yard.join("a")
        await yard.turn(one)
        assert (allowed(one), allowed(one, "queue/other"), one.trouble) == (LIMIT, LIMIT, None)

    using(test)


def test_the_object_says_whose_it_is() -> None:
    """Of one deployment alone: two in one namespace share nothing."""

    async def test(yard: Yard) -> None:
        one, other = yard.join("a", deployment="one"), yard.join("a", deployment="two")
        await yard.turn(one, other)
        assert (allowed(one), allowed(other)) == (LIMIT, LIMIT)
        owners = {found["metadata"]["labels"][labels.DEPLOYMENT_LABEL] for found in yard.api.config_maps.values()}
        assert owners == {"one", "two"}

    using(test)


def test_two_share_what_both_want() -> None:
    """The second has nothing until the first has let go."""

    async def test(yard: Yard) -> None:
        first, second = yard.join("a"), yard.join("b")
        await yard.turn(first, second)
        assert (allowed(first), allowed(second)) == (LIMIT, 0)
        await yard.turn(first, second)
        assert (allowed(first), allowed(second)) == (LIMIT // 2, LIMIT // 2)

    using(test)


def test_a_key_that_was_not_asked_for_is_asked_for_at_once() -> None:
    """Whoever asks waits for one turn, and no longer."""

    async def test(yard: Yard) -> None:
        first, second = yard.join("a"), yard.join("b")
        await yard.turn(first, second, first)
        await first.wake.wait(0.0)
        assert allowed(first, "queue/new") == "LimitsUnknown"
        assert await first.wake.wait(0.0)

    using(test)


def test_a_write_that_another_one_was_faster_than_is_made_anew() -> None:
    """From what the object says then."""

    async def test(yard: Yard) -> None:
        first, second = yard.join("a"), yard.join("b")
        await yard.turn(first)
        gate = yard.api.hold("patch_config_map")
        turns = [asyncio.create_task(one.turn(yard.demand(one._me))) for one in (first, second)]
        await asyncio.sleep(1)
        gate.set()
        await asyncio.wait(turns)
        assert yard.api.calls["patch_config_map"] == 3, "one of two was refused, and has written again"
        assert set(yard.config_map()["data"]) == {"a", "b"}
        assert (first.trouble, second.trouble) == (None, None)
        assert sorted([allowed(first), allowed(second)]) in ([0, LIMIT // 2], [0, LIMIT])

    using(test)


def test_both_that_create_the_object_at_once_agree() -> None:
    """One of them finds that it is there."""

    async def test(yard: Yard) -> None:
        first, second = yard.join("a"), yard.join("b")
        gate = yard.api.hold("create_config_map")
        turns = [asyncio.create_task(one.turn(yard.demand(one._me))) for one in (first, second)]
        await asyncio.sleep(1)
        gate.set()
        await asyncio.wait(turns)
        assert set(yard.config_map()["data"]) == {"a", "b"}
        assert sorted([allowed(first), allowed(second)]) == [0, LIMIT]

    using(test)


def test_an_object_that_somebody_deleted_is_made_anew() -> None:
    """Also where that happens between reading and writing."""

    async def test(yard: Yard) -> None:
        one = yard.join("a")
        await yard.turn(one)
        gate = yard.api.hold("patch_config_map")
        turn = asyncio.create_task(one.turn(yard.demand("a")))
        await asyncio.sleep(1)
        yard.api.config_maps.clear()
        gate.set()
        await turn
        assert (set(yard.config_map()["data"]), one.trouble) == ({"a"}, None)

    using(test)


def test_a_write_whose_answer_was_lost_gives_nothing_away() -> None:
    """Until it is known what stands there, the smaller part holds."""

    async def test(yard: Yard) -> None:
        first, second = yard.join("a"), yard.join("b")
        await yard.turn(first, second, first, second)
        yard.needs["b"] = Need()
        await yard.turn(second)
        yard.api.fail("patch_config_map", errors.ApiUnavailable("lost"), takes_effect=True)
        await yard.turn(first)
        assert (allowed(first), first.trouble) == (LIMIT // 2, "lost")
        await yard.turn(first)
        assert (allowed(first), first.trouble) == (LIMIT, None)

    using(test)


@pytest.mark.parametrize(
    "fault",
    [
        errors.ApiUnavailable("no answer"),
        errors.ApiError(429, "TooManyRequests", "slow down"),
        errors.ApiError(500, "InternalError", "etcd"),
        errors.ApiError(401, "Unauthorized", "token"),
        RuntimeError("a fault that nobody foresaw"),
    ],
    ids=str,
)
@pytest.mark.parametrize("call", ["read_config_map", "patch_config_map"])
def test_who_cannot_write_for_a_while_creates_nothing_more(call: str, fault: Exception) -> None:
    """The others take it for gone then; what it held is used until that time."""

    async def test(yard: Yard) -> None:
        one = yard.join("a")
        await yard.turn(one)
        yard.api.fail(call, fault, times=100)
        again_s = await one.turn(yard.demand("a"))
        assert (allowed(one), one.trouble, again_s) == (LIMIT, str(fault), PACE.every_s)
        await asyncio.sleep(PACE.valid_s + 0.1)
        await yard.turn(one)
        held = one.allowed(KEY, LIMIT)
        assert isinstance(held, BlockedReason)
        assert (held.reason, str(fault) in held.text) == ("LimitsUnknown", True)
        yard.api._faults.clear()
        await yard.turn(one)
        assert (allowed(one), one.trouble) == (LIMIT, None)

    using(test)


def test_validity_counts_from_when_the_write_was_sent() -> None:
    """A slow answer shortens it: the others have counted since they saw the beat."""

    async def test(yard: Yard) -> None:
        one = yard.join("a")
        await yard.turn(one)
        gate = yard.api.hold("patch_config_map")
        turn = asyncio.create_task(one.turn(yard.demand("a")))
        await asyncio.sleep(PACE.valid_s - 1)
        gate.set()
        await turn
        assert allowed(one) == LIMIT
        await asyncio.sleep(1.1)
        assert allowed(one) == "LimitsUnknown"

    using(test)


@pytest.mark.parametrize("status", [403, 405, 413, 422])
@pytest.mark.parametrize("call", ["read_config_map", "create_config_map"])
def test_an_object_that_may_not_be_had_leaves_each_to_itself(call: str, status: int) -> None:
    """The limits hold beside the pods that it sees of others; it is asked for seldom, and shared when it is there."""

    async def test(yard: Yard) -> None:
        one = yard.join("a")
        yard.api.fail(call, errors.ApiError(status, "Refused", "no"))
        again_s = await one.turn(yard.demand("a"))
        assert again_s == shared_limits.AGAIN_S
        one.saw([pod("b"), pod("b"), pod("b", phase="Succeeded")], 1.0)
        assert (allowed(one), one.trouble) == (LIMIT - 2, f"{status} Refused: no")
        one.saw([pod("b")] * (LIMIT + 5), 2.0)
        assert allowed(one) == 0
        one.saw([], 3.0)
        assert await one.turn(yard.demand("a")) == PACE.every_s
        assert (allowed(one), one.trouble) == (LIMIT, None)

    using(test)


def test_a_namespace_that_is_not_there_is_no_missing_object() -> None:
    """Nothing could be created in it: 404 about the namespace, not about the object."""

    async def test(yard: Yard) -> None:
        one = yard.join("a")
        yard.api.fail("read_config_map", errors.ApiError(404, "NotFound", 'namespaces "n" not found'))
        assert await one.turn(yard.demand("a")) == shared_limits.AGAIN_S
        assert (allowed(one), yard.api.calls["create_config_map"]) == (LIMIT, 0)

    using(test)


def test_trouble_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Not at each turn, but again after it has worked; the first one, too."""

    async def test(yard: Yard) -> None:
        one = yard.join("a")
        for _ in range(2):
            yard.api.fail("read_config_map", errors.ApiUnavailable("no answer"), times=3)
            for _ in range(4):
                await yard.turn(one)

    using(test)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


def test_who_leaves_gives_back_what_it_does_not_use() -> None:
    """Its pods run on and count."""

    async def test(yard: Yard) -> None:
        first, second = yard.join("a"), yard.join("b")
        await yard.turn(first, second, first, second)
        await first.leave({KEY: 2, "queue/idle": 0})
        assert allowed(first) == "LimitsUnknown"
        entry = json.loads(yard.config_map()["data"]["a"])
        assert (entry["used"], entry.get("shares", {})) == ({KEY: 2}, {})
        await yard.turn(second)
        assert allowed(second) == LIMIT - 2

    using(test)


@pytest.mark.parametrize("fault", [errors.ApiUnavailable("x"), errors.ApiError(409, "Conflict", "x")], ids=str)
def test_leaving_never_fails_nor_lasts(fault: Exception) -> None:
    """It only saves the others time; and it is done once."""

    async def test(yard: Yard) -> None:
        one = yard.join("a")
        await one.leave({KEY: 1})
        assert yard.api.calls["patch_config_map"] == 0, "it has never joined"
        await yard.turn(one)
        yard.api.fail("patch_config_map", fault)
        await one.leave({KEY: 1})
        await yard.turn(one)
        yard.api.hold("patch_config_map")
        async with asyncio.timeout(shared_limits.LEAVE_S + 0.1):
            await one.leave({KEY: 1})
        calls = yard.api.calls["patch_config_map"]
        await one.leave({KEY: 1})
        assert yard.api.calls["patch_config_map"] == calls

    using(test)


def test_who_is_gone_loses_its_slots_once_its_pods_were_counted() -> None:
    """Not before, however long its entry stands still; and its entry goes with its last pod."""

    async def test(yard: Yard) -> None:
        first, second = yard.join("a"), yard.join("b")
        await yard.turn(first, second, first, second)
        for _ in range(int(PACE.gone_s) + 2):
            await asyncio.sleep(1)
            await yard.turn(second)
        assert allowed(second) == LIMIT // 2
        second.saw([pod("a")] * 3, asyncio.get_running_loop().time())
        await yard.turn(second)
        assert allowed(second) == LIMIT - 3
        second.saw([], asyncio.get_running_loop().time())
        await yard.turn(second)
        assert (allowed(second), set(yard.config_map()["data"])) == (LIMIT, {"b"})

    using(test)


def test_who_was_taken_for_gone_and_comes_back_has_nothing_until_it_has_written() -> None:
    """It stopped creating before the others took its slots: `valid_s` is shorter than `gone_s`."""

    async def test(yard: Yard) -> None:
        assert PACE.valid_s < PACE.gone_s
        first, second = yard.join("a"), yard.join("b")
        await yard.turn(first, second, first, second)
        for _ in range(int(PACE.gone_s) + 2):
            await asyncio.sleep(1)
            second.saw([], asyncio.get_running_loop().time())
            await yard.turn(second)
        assert (allowed(first), allowed(second)) == ("LimitsUnknown", LIMIT)
        await yard.turn(first)
        assert allowed(first) == 0, "the other one holds all of it"
        await yard.turn(second, first)
        assert (allowed(first), allowed(second)) == (LIMIT // 2, LIMIT // 2)

    using(test)


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "null", '{"beat": "x"}', '{"shares": {"all": 1}}', "{}"])
def test_an_entry_that_cannot_be_read_stops_nobody(text: str) -> None:
    """Its owner's pods count as the cluster shows them; a key of ours that somebody edited is written anew."""

    async def test(yard: Yard) -> None:
        one = yard.join("a")
        await yard.turn(one)
        yard.config_map()["data"] |= {"b": text, "a": text}
        one.saw([pod("b")] * 3, 1.0)
        await yard.turn(one)
        assert (allowed(one), one.trouble) == (LIMIT - 3, None)
        assert json.loads(yard.config_map()["data"]["a"])["beat"]

    using(test)


@pytest.mark.parametrize("emptied", [{}, {"data": None}, {"data": {}}], ids=str)
def test_an_object_that_was_emptied_is_filled_again(emptied: dict[str, Any]) -> None:
    """By hand, or by a tool that prunes."""

    async def test(yard: Yard) -> None:
        one = yard.join("a")
        await yard.turn(one)
        found = yard.config_map()
        found.pop("data")
        found |= emptied
        await yard.turn(one)
        assert (allowed(one), set(yard.config_map()["data"])) == (LIMIT, {"a"})

    using(test)


def test_an_object_that_is_changed_without_end_is_given_up_for_this_turn() -> None:
    """What was held is valid as long as it is."""

    async def test(yard: Yard) -> None:
        one = yard.join("a")
        await yard.turn(one)
        conflict = errors.ApiError(409, "Conflict", "the object has been modified")
        yard.api.fail("patch_config_map", conflict, times=shared_limits.BACKOFF.tries or 0)
        assert await one.turn(yard.demand("a")) == PACE.every_s
        assert one.trouble is not None
        assert "was changed by others again and again" in one.trouble
        assert allowed(one) == LIMIT

    using(test)


def test_a_slot_that_becomes_free_is_passed_on_at_once_where_others_wait() -> None:
    """And costs nothing where nobody does."""

    async def test(yard: Yard) -> None:
        first, second = yard.join("a"), yard.join("b", waits=0)
        first.freed()
        await yard.turn(first)
        first.freed()
        assert not await first.wake.wait(0.0), "it is alone"
        yard.needs["a"], yard.needs["b"] = Need(used=LIMIT), Need(waits=5)
        await yard.turn(first, second, first)
        assert allowed(first) == LIMIT // 2
        first.freed()
        assert await first.wake.wait(0.0)

    using(test)


def test_who_waits_for_slots_that_are_due_asks_sooner() -> None:
    """Until they have come."""

    async def test(yard: Yard) -> None:
        first, second = yard.join("a"), yard.join("b")
        assert await first.turn(yard.demand("a")) == PACE.every_s
        assert await second.turn(yard.demand("b")) == PACE.short_s
        await yard.turn(first)
        assert await second.turn(yard.demand("b")) == PACE.every_s

    using(test)


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["turn", "create", "end", "want", "lose", "refuse", "sleep", "look"]),
            st.sampled_from(["a", "b", "c"]),
            st.integers(0, 12),
        ),
        max_size=40,
    )
)
def test_whatever_happens_the_living_never_exceed_a_limit_together(steps: list[tuple[str, str, int]]) -> None:
    """Turns in any order, answers that are lost, pods that begin and end, pauses: the sum of pods stays within it."""

    async def test(yard: Yard) -> None:
        dispatchers = {name: yard.join(name) for name in "abc"}
        pods = dict.fromkeys(dispatchers, 0)
        for step, name, number in steps:
            one = dispatchers[name]
            match step:
                case "turn":
                    await yard.turn(one)
                case "create":
                    may = one.allowed(KEY, LIMIT)
                    if not isinstance(may, BlockedReason) and pods[name] < may:
                        pods[name] += 1
                case "end":
                    pods[name] = max(0, pods[name] - number)
                case "want":
                    yard.needs[name] = Need(waits=number)
                case "lose":
                    fault = errors.ApiUnavailable("lost")
                    yard.api.fail("patch_config_map", fault, takes_effect=number % 2 == 0)
                case "refuse":
                    yard.api.fail("read_config_map", errors.ApiError(500, "InternalError", "etcd"))
                case "sleep":
                    await asyncio.sleep(number)
                case _:
                    others = [pod(other) for other in pods if other != name for _ in range(pods[other])]
                    one.saw(others, asyncio.get_running_loop().time())
            yard.needs = {who: Need(used=pods[who], waits=need.waits) for who, need in yard.needs.items()}
            assert sum(pods.values()) <= LIMIT

    using(test)
