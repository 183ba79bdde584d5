"""How the slots of one limit are divided between dispatchers."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.admission import fair_share
from dispatcher.admission.fair_share import Entry, Grant, Need

LIMIT = 10
needs_of_many = st.dictionaries(
    st.sampled_from("abcdef"),
    st.builds(Need, used=st.integers(0, 30), waits=st.integers(0, 30), oldest_s=st.floats(0, 1000)),
    min_size=1,
)


@pytest.mark.parametrize(
    ("needs", "expected"),
    [
        ({"a": Need(waits=50)}, {"a": 10}),
        ({"a": Need(waits=50), "b": Need(waits=50)}, {"a": 5, "b": 5}),
        ({"a": Need(waits=50), "b": Need(waits=2)}, {"a": 8, "b": 2}),
        ({"a": Need(used=10, waits=50), "b": Need(waits=50)}, {"a": 5, "b": 5}),
        ({"a": Need(used=2), "b": Need(used=2)}, {"a": 5, "b": 5}),
        ({"a": Need(waits=9), "b": Need(waits=9), "c": Need(waits=9, oldest_s=60)}, {"a": 3, "b": 3, "c": 4}),
    ],
    ids=["alone", "two", "one needs little", "one has all", "what nobody needs is shared", "a rest to the patient"],
)
def test_all_get_what_they_need_or_the_same(needs: dict[str, Need], expected: dict[str, int]) -> None:
    """Nothing is kept from use while somebody waits."""
    assert fair_share.targets(needs, limit=LIMIT) == expected


@given(needs_of_many, st.integers(0, 40))
def test_all_of_the_limit_is_given_out_and_no_more(needs: dict[str, Need], limit: int) -> None:
    """Whatever is wanted."""
    given_out = fair_share.targets(needs, limit=limit)
    assert given_out.keys() == needs.keys()
    assert sum(given_out.values()) == limit
    assert all(count >= 0 for count in given_out.values())


@given(needs_of_many, st.integers(0, 40))
def test_nobody_is_far_behind_another(needs: dict[str, Need], limit: int) -> None:
    """Who gets less than he wants gets at most one slot less than anybody else."""
    given_out = fair_share.targets(needs, limit=limit)
    wanted = {name: need.used + need.waits for name, need in needs.items()}
    for name, count in given_out.items():
        if count < wanted[name]:
            assert all(count >= other - 1 for other in given_out.values())


def test_a_grant_keeps_to_what_the_others_leave() -> None:
    """Though its target is more: the others have not let go yet."""
    needs = {"a": Need(waits=50), "b": Need(used=8)}
    assert fair_share.grant("a", needs, limit=10, held=8, lost=0) == Grant(share=2, allowed=2, is_short=True)
    assert fair_share.grant("a", {**needs, "b": Need()}, limit=10, held=0, lost=0) == Grant(share=10, allowed=10)


def test_who_has_too_much_creates_nothing_and_keeps_its_pods() -> None:
    """Its share is what it has, until pods end."""
    needs = {"a": Need(used=10, waits=5), "b": Need(waits=50)}
    assert fair_share.grant("a", needs, limit=10, held=0, lost=0) == Grant(share=10, allowed=5)


def test_pods_of_those_that_are_gone_count() -> None:
    """They are nobody's share."""
    assert fair_share.grant("a", {"a": Need(waits=50)}, limit=10, held=0, lost=7) == Grant(share=3, allowed=3)


@pytest.mark.parametrize("text", ["", "{}", "nonsense", '{"beat": "x"}', '{"beat": 1, "shares": {"q": "many"}}'])
def test_what_is_no_entry_is_none(text: str) -> None:
    """Somebody may have edited it by hand."""
    assert fair_share.decode(text) is None


def test_an_entry_comes_back_as_it_was() -> None:
    """And one that holds everything holds every limit."""
    entry = Entry(beat=7, shares={"all": 3}, used={"all": 2}, waits={"all": 4}, oldest_s={"all": 1.5})
    assert fair_share.decode(fair_share.encode(entry)) == entry
    assert fair_share.decode(fair_share.encode(Entry(beat=1, shares=None))) == Entry(beat=1, shares=None)
    assert Entry(beat=1, shares=None).held("all", 9) == 9
    assert entry.held("all", 9) == 3


class Player:
    """A dispatcher as the arithmetic sees it: it takes turns, creates while it may, and its pods end."""

    def __init__(self, name: str, *, waits: int) -> None:
        self.name = name
        self.waits = waits
        self.oldest_s = 0.0
        self.pods = 0
        self.allowed = 0
        self.created = 0

    def turn(self, ledger: dict[str, Entry], limit: int) -> None:
        """Reads, decides, writes; nobody comes between."""
        others = {name: entry for name, entry in ledger.items() if name != self.name}
        mine = Need(used=self.pods, waits=self.waits, oldest_s=self.oldest_s)
        needs = {self.name: mine, **{name: entry.need("q") for name, entry in others.items()}}
        held = sum(entry.held("q", limit) for entry in others.values())
        got = fair_share.grant(self.name, needs, limit=limit, held=held, lost=0)
        self.allowed = got.allowed
        ledger[self.name] = Entry(
            beat=0,
            shares={"q": got.share},
            used={"q": self.pods},
            waits={"q": self.waits},
            oldest_s={"q": self.oldest_s},
        )

    def create(self) -> None:
        """One pod, if it may."""
        if self.waits and self.pods < self.allowed:
            self.pods, self.waits, self.created = self.pods + 1, self.waits - 1, self.created + 1

    def end(self) -> None:
        """One pod, if there is any."""
        self.pods = max(0, self.pods - 1)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 12), st.integers(2, 5), st.integers(0, 2**32))
def test_whoever_moves_when_the_limit_is_never_exceeded(limit: int, count: int, seed: int) -> None:
    """At every moment of any order of turns, creates and ends; and in the end everybody has had everything."""
    chance = random.Random(seed)
    players = [Player(str(number), waits=chance.randrange(1, 30)) for number in range(count)]
    wanted = [player.waits for player in players]
    ledger: dict[str, Entry] = {}
    for _ in range(300):
        player = chance.choice(players)
        chance.choice([lambda: player.turn(ledger, limit), player.create, player.create, player.end])()  # noqa: B023 - called at once
        assert sum(player.pods for player in players) <= limit
    for _ in range(40 * count + 200):
        if not any(player.waits or player.pods for player in players):
            break
        for player in players:
            player.turn(ledger, limit)
            player.create()
            player.end()
            assert sum(player.pods for player in players) <= limit
    assert [player.created for player in players] == wanted


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_nobody_starves(limit: int) -> None:
    """Each of three that always want more gets its part, a limit of one slot included: who waits longest is next."""
    players = [Player(name, waits=100_000) for name in "abc"]
    ledger: dict[str, Entry] = {}
    for _ in range(2000):
        for player in players:
            before = player.created
            player.turn(ledger, limit)
            player.create()
            player.oldest_s = 0.0 if player.created > before else player.oldest_s + 1.0
            player.end()
    created = [player.created for player in players]
    assert min(created) > max(created) / 3, created
