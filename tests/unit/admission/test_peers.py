"""What a dispatcher knows of the others, and what it plans from that."""

from typing import Any

from dispatcher.admission.fair_share import Entry, Grant, Need
from dispatcher.admission.peers import Peers, Plan
from dispatcher.manifests import labels

GONE_S = 15.0
LIMIT = 10
MUCH = {"all": (LIMIT, Need(waits=100))}
NOTHING: dict[str, tuple[int, Need]] = {}


def pods(owner: str, count: int, *, phase: str = "Running") -> list[dict[str, Any]]:
    """Pods of an owner, as a list shows them."""
    metadata = {
        "namespace": "n",
        "labels": {labels.OWNER_LABEL: owner},
        "annotations": {labels.QUEUE_ANNOTATION: "q"},
    }
    return [{"metadata": metadata, "status": {"phase": phase}}] * count


def share(plan: Plan) -> int | None:
    """Of the one limit; None where it holds everything."""
    return None if plan.entry.shares is None else plan.entry.shares.get("all", 0)


def test_who_is_alone_holds_everything() -> None:
    """Its own older entry is nobody else's."""
    me = Peers("me", gone_s=GONE_S)
    assert me.plan({}, NOTHING, beat=1, now_mono_s=0.0).is_alone
    assert me.plan({"me": Entry(beat=9)}, MUCH, beat=1, now_mono_s=0.0).is_alone


def test_who_comes_second_waits_until_the_first_lets_go() -> None:
    """The first one does so at its next turn, as soon as it sees the other one."""
    first, second = Peers("first", gone_s=GONE_S), Peers("second", gone_s=GONE_S)
    all_of_it = first.plan({}, MUCH, beat=1, now_mono_s=0.0).entry
    joined = second.plan({"first": all_of_it}, MUCH, beat=1, now_mono_s=0.1)
    assert (share(joined), joined.is_short) == (0, True)
    both = {"first": all_of_it, "second": joined.entry}
    half = first.plan(both, MUCH, beat=2, now_mono_s=1.0)
    assert share(half) == LIMIT // 2
    assert share(second.plan({**both, "first": half.entry}, MUCH, beat=2, now_mono_s=1.1)) == LIMIT // 2


def test_whose_entry_stands_still_is_gone_when_its_pods_were_counted() -> None:
    """Not before: a look from before its end says nothing of what it made afterwards."""
    me = Peers("me", gone_s=GONE_S)
    entries = {"it": Entry(beat=7, shares={"all": 6}, used={"all": 2})}
    assert share(me.plan(entries, MUCH, beat=1, now_mono_s=0.0)) == 4
    me.saw(pods("it", 2), asked_mono_s=10.0)
    assert share(me.plan(entries, MUCH, beat=2, now_mono_s=GONE_S + 1)) == 4
    me.saw(pods("it", 2), asked_mono_s=GONE_S + 2)
    plan = me.plan(entries, MUCH, beat=3, now_mono_s=GONE_S + 3)
    assert (share(plan), plan.gone) == (8, ())
    me.saw(pods("it", 1, phase="Succeeded"), asked_mono_s=GONE_S + 4)
    plan = me.plan(entries, MUCH, beat=4, now_mono_s=GONE_S + 5)
    assert (plan.is_alone, plan.gone) == (True, ("it",))


def test_who_moves_is_not_gone() -> None:
    """By its beat, whatever its clock says."""
    me = Peers("me", gone_s=GONE_S)
    for beat in range(100):
        plan = me.plan({"it": Entry(beat=beat, shares={"all": 6})}, MUCH, beat=beat, now_mono_s=beat * 10.0)
        assert share(plan) == 4


def test_pods_that_changed_hands_count_once_at_least() -> None:
    """The taker has not written yet that it has them: the cluster shows them."""
    me = Peers("me", gone_s=GONE_S)
    entries = {"gone": Entry(beat=1, shares={"all": 4}, used={"all": 4}), "taker": Entry(beat=1, shares={"all": 3})}
    me.plan(entries, MUCH, beat=1, now_mono_s=0.0)
    me.saw(pods("taker", 7), asked_mono_s=GONE_S + 1)
    entries["taker"] = Entry(beat=2, shares={"all": 3}, used={"all": 3})
    plan = me.plan(entries, MUCH, beat=2, now_mono_s=GONE_S + 2)
    assert (share(plan), plan.gone) == (3, ("gone",))


def test_pods_of_those_without_an_entry_count() -> None:
    """Of an older version, or after somebody emptied the ConfigMap."""
    me = Peers("me", gone_s=GONE_S)
    me.saw(pods("old", 3), asked_mono_s=0.0)
    assert share(me.plan({}, MUCH, beat=1, now_mono_s=1.0)) == LIMIT - 3
    assert me.pods("all") == 3


def test_while_a_plan_is_written_the_smaller_part_holds() -> None:
    """Whichever of the two stands in the ledger then."""
    alone = Plan(entry=Entry(beat=1, shares=None))
    less = Plan(entry=Entry(beat=2), grants={"a": Grant(share=2, allowed=2), "b": Grant(share=9, allowed=9)})
    more = Plan(entry=Entry(beat=3), grants={"a": Grant(share=5, allowed=5), "c": Grant(share=1, allowed=1)})
    assert alone.lowered(less) == less
    assert less.lowered(alone) == less
    assert {key: one.allowed for key, one in less.lowered(more).grants.items()} == {"a": 2}
