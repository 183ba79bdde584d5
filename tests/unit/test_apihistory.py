"""The history of an API server: every lie that one could tell is found, and an honest life is not."""

import dataclasses

import pytest

from tests import apihistory, history
from tests.apihistory import Covered, Created, Event, Read, Taken, Told, Unmade

PLACE = ("pods", "default", "p")
STREAM = "all"


def made(uid: str = "u1", version: int = 1, **fields: object) -> Created:
    return dataclasses.replace(Created(place=PLACE, uid=uid, version=version), **fields)  # type: ignore[arg-type]


def read(uid: str = "u1", version: int = 2, **fields: object) -> Read:
    return dataclasses.replace(Read(place=PLACE, uid=uid, version=version), **fields)  # type: ignore[arg-type]


def told(kind: str, version: int, uid: str = "u1", **fields: object) -> Told:
    event = Told(stream=STREAM, type=kind, place=PLACE, uid=uid, version=version)
    return dataclasses.replace(event, **fields)  # type: ignore[arg-type]


COVERED = Covered(stream=STREAM, plural="pods")
LIFE: tuple[Event, ...] = (
    made(),
    told("ADDED", 1),
    read(),
    told("MODIFIED", 2),
    Taken(place=PLACE),
    Unmade(place=PLACE),
    read(version=3),
    told("MODIFIED", 3),
    told("DELETED", 4, is_final=True),
    made("u2", 5),
    told("ADDED", 5, "u2"),
    Unmade(place=("pods", "default", "")),
    told("DELETED", 6, "u2", is_final=True),
    COVERED,
)


def found(*events: Event) -> set[str]:
    """The kinds of what is wrong, by the one checker that everybody asks."""
    wrong = history.check(events)
    assert {one.guarantee for one in wrong} <= {"API"}
    return {one.kind for one in wrong}


def without(*events: Event) -> list[Event]:
    return [event for event in LIFE if event not in events]


def test_an_honest_life_is_in_order() -> None:
    assert found(*LIFE) == set()


def test_a_uid_belongs_to_one_object() -> None:
    """It is neither created twice nor seen under two names."""
    assert "reused" in found(made(), Unmade(place=PLACE), made(version=2))
    assert found(made(), read(place=("pods", "default", "q"))) == {"reused"}
    assert found(made(), read(place=("pods", "other", "p"))) == {"reused"}
    assert found(made(), told("ADDED", 2, place=("pods", "default", "q"))) == {"reused"}
    assert found(made(), Unmade(place=PLACE), read(), made("u1", 3, place=("pods", "default", "q"))) == {"reused"}


def test_a_name_is_had_by_one_object_at_a_time() -> None:
    """The heart of a claim by create: two that were answered 201, and nobody had asked for a delete."""
    assert found(made(), made("u2", 2)) == {"conflict"}
    assert found(made(), Unmade(place=PLACE), made("u2", 2)) == set()


@pytest.mark.parametrize("place", [("pods", "default", ""), ("", "default", ""), PLACE])
def test_a_delete_frees_the_names_that_it_covers(place: apihistory.Place) -> None:
    assert found(made(), Unmade(place=place), made("u2", 2)) == set()


@pytest.mark.parametrize("place", [("secrets", "default", ""), ("", "other", ""), ("pods", "default", "q")])
def test_a_delete_of_something_else_frees_none(place: apihistory.Place) -> None:
    assert found(made(), Unmade(place=place), made("u2", 2)) == {"conflict"}


def test_two_objects_of_one_name_in_a_stream_are_a_conflict() -> None:
    """Also where a delete was asked for: the second appears before the first is gone."""
    assert found(told("ADDED", 1), Unmade(place=PLACE), told("ADDED", 2, "u2")) == {"conflict"}


def test_a_refusal_needs_somebody_who_has_the_name() -> None:
    assert found(Taken(place=PLACE)) == {"conflict"}
    assert found(made(), Taken(place=PLACE)) == set()


def test_an_answer_never_shows_an_older_object() -> None:
    assert found(made(version=3), read(version=2)) == {"backwards"}
    assert found(made(version=3), read(version=3), read(version=4)) == set()


def test_a_stream_never_goes_back() -> None:
    """Neither for one object nor from one to the next."""
    assert found(told("ADDED", 2), told("MODIFIED", 2)) == {"backwards"}
    assert found(told("ADDED", 2), told("MODIFIED", 1)) == {"backwards"}
    assert found(told("ADDED", 2), told("ADDED", 1, "u2", place=("pods", "default", "q"))) == {"backwards"}
    assert found(told("ADDED", 2), told("ADDED", 1, stream="another")) == set()


def test_nothing_follows_an_end() -> None:
    """A late event: the object has gone, and is told of again."""
    gone = told("DELETED", 2, is_final=True)
    for kind in ("ADDED", "MODIFIED", "DELETED"):
        assert found(told("ADDED", 1), gone, told(kind, 3)) == {"late"}


def test_what_left_a_selector_may_come_back_as_added_alone() -> None:
    left = told("DELETED", 2)
    assert found(told("ADDED", 1), left, told("ADDED", 3)) == set()
    assert found(told("ADDED", 1), left, told("MODIFIED", 3)) == {"late"}
    assert found(told("ADDED", 1), left, told("DELETED", 3)) == {"late"}


def test_an_object_is_added_once() -> None:
    assert found(told("ADDED", 1), told("ADDED", 2)) == {"order"}
    assert found(told("ADDED", 1), told("MODIFIED", 2), told("ADDED", 3)) == {"order"}


def test_a_stream_that_was_open_loses_nothing() -> None:
    """Neither a beginning nor an end; what is still there has no end."""
    assert found(*without(LIFE[1], LIFE[3], LIFE[7], LIFE[8])) == {"lost"}
    assert found(*without(LIFE[1])) == {"order"}
    assert found(*without(LIFE[8])) >= {"lost"}
    assert found(made(), told("ADDED", 1), Covered(stream=STREAM, plural="pods", left=frozenset({"u1"}))) == set()


def test_a_stream_that_nobody_vouches_for_may_begin_in_the_middle() -> None:
    """Only one that was open all the time can show a loss."""
    assert found(*without(LIFE[1], COVERED)) == set()
    assert found(made(), Covered(stream=STREAM, plural="secrets")) == set()
