"""The table of pods: rows are replaced whole, ended only as they were read, and any text can be stored."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from dispatcher import errors
from dispatcher.attempts import status_store
from dispatcher.attempts.status_store import POD, PodRow, PodStore

pytestmark = pytest.mark.filterwarnings("ignore:Selection of the SingletonThreadPool")  # either class will do

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


def row(attempt_id: str = "a", **given: Any) -> PodRow:
    """A pod that runs."""
    usual = {
        "attempt_id": attempt_id,
        "retries": 0,
        "deployment": "d",
        "name": f"pod-{attempt_id}",
        "namespace": "n",
        "queue": "q",
        "task": "t",
        "owner": "o",
        "phase": "Running",
        "updated_at": NOW,
    }
    return PodRow(**{**usual, **given})


@pytest.fixture
def store() -> Iterator[PodStore]:
    """A table of pods in memory."""
    found = PodStore(f"sqlite:///file:{uuid4()}?mode=memory&cache=shared&uri=true")
    status_store.METADATA.create_all(found._engine)
    yield found
    found.close()


def open_ids(store: PodStore, *, before: datetime = LATER, **more: Any) -> list[str]:
    """The attempts of the rows that are open."""
    return [one.attempt_id for one in store.open_rows(**{"deployment": "d", "before": before, **more})]


def test_every_field_of_a_row_comes_back_as_it_was(store: PodStore) -> None:
    """Times are aware, and of UTC, whatever they were of."""
    berlin = timezone(timedelta(hours=1))
    given: dict[str, Any] = {
        one.name: f"some {one.name}" for one in fields(PodRow) if one.type in (str, "str", str | None, "str | None")
    }
    given |= {"phase": "Failed", "cause": "unknown", "at_deadline": "retry", "retries": 3, "exit_code": 137}
    given |= {one.name: NOW.astimezone(berlin) for one in fields(PodRow) if "datetime" in str(one.type)}
    store.save([PodRow(**given)])
    (found,) = store.pods()
    assert asdict(found) == given
    times = [value for value in asdict(found).values() if isinstance(value, datetime)]
    assert {time.utcoffset() for time in times} == {timedelta(0)}


def test_a_row_that_says_less_stands_as_it_says(store: PodStore) -> None:
    """Rows are whole: what the newer one does not know is not left over from the older one."""
    store.save([row(reason="ContainerCreating", node="node-1", waiting_since=NOW)])
    store.save([row(phase="Succeeded")])
    assert store.pods() == [row(phase="Succeeded")]


def test_launches_of_one_attempt_are_rows_of_their_own(store: PodStore) -> None:
    """By their retries."""
    store.save([row(), row(retries=1, phase="Pending")])
    store.save([row(phase="Failed")])
    assert {(one.retries, one.phase) for one in store.pods()} == {(0, "Failed"), (1, "Pending")}


def test_the_newest_rows_come_first_and_no_more_than_were_asked_for(store: PodStore) -> None:
    """Of all, or of some attempts; of no attempts there are none."""
    store.save([row(str(number), updated_at=NOW + timedelta(minutes=number)) for number in range(5)])
    assert [one.attempt_id for one in store.pods(limit=3)] == ["4", "3", "2"]
    assert [one.attempt_id for one in store.pods(attempt_ids=(one for one in ["1", "3", "x"]))] == ["3", "1"]
    assert store.pods(attempt_ids=[]) == []


@pytest.mark.parametrize("phase", ["Waiting", "Pending", "Running", "Unknown", "Succeeded", "Failed"])
def test_a_row_whose_end_is_not_reported_is_open(store: PodStore, phase: str) -> None:
    """Of this deployment, and not written just now: a pod that was seen to end may vanish before its end is stored."""
    store.save([row(phase=phase), row("other", phase=phase, deployment="another")])
    assert open_ids(store) == ["a"]
    assert open_ids(store, before=NOW) == []


@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Lost", "Revoked"])
def test_a_row_whose_end_is_reported_is_not_open(store: PodStore, phase: str) -> None:
    """Nobody looks for its pod."""
    store.save([row(phase=phase, reported_at=NOW), row("b", phase=phase)])
    store.reported(row("b", phase=phase), at=NOW)
    assert open_ids(store) == []


def test_of_open_rows_those_come_first_that_were_written_the_longest_ago(store: PodStore) -> None:
    """So none is passed over for ever where there are many."""
    store.save([row(str(number), updated_at=NOW - timedelta(minutes=number)) for number in range(5)])
    assert open_ids(store, limit=2) == ["4", "3"]


def test_a_row_is_ended_as_it_was_read(store: PodStore) -> None:
    """Lost: with the reason, as a failure of the infrastructure."""
    store.save([row(), row("b", ended_at=NOW)])
    store.end(row(), phase="Lost", at=LATER)
    store.end(row("b", ended_at=NOW), phase="Succeeded", at=LATER)
    lost, ended = sorted(store.pods(), key=lambda one: one.attempt_id)
    ending = dict.fromkeys(("ended_at", "deleted_at", "reported_at", "updated_at"), LATER)
    why = {"reason": "PodDeleted", "cause": "infrastructure", "message": status_store.LOST}
    assert lost == row(phase="Lost", **ending, **why)
    assert ended == row("b", phase="Succeeded", **{**ending, "ended_at": NOW})


@pytest.mark.parametrize("newer", [{"updated_at": LATER}, {"phase": "Succeeded"}], ids=str)
def test_a_row_that_was_written_since_is_neither_ended_nor_forgotten(store: PodStore, newer: dict[str, Any]) -> None:
    """Its writer knew more."""
    store.save([row(**newer)])
    store.end(row(), phase="Lost", at=LATER)
    store.reported(row(), at=LATER)
    store.forget(row())
    assert store.pods() == [row(**newer)]


def test_one_launch_is_forgotten_and_no_other(store: PodStore) -> None:
    """Neither another retry nor another attempt."""
    store.save([row(), row(retries=1), row("b")])
    store.forget(row())
    assert {(one.attempt_id, one.retries) for one in store.pods()} == {("a", 1), ("b", 0)}


def test_nothing_to_save_asks_nothing_of_the_database() -> None:
    """Not even a connection."""
    store = PodStore("sqlite:////no/such/folder/pods.db")
    store.save([])
    store.close()


@pytest.mark.parametrize("url", ["sqlite:////no/such/folder/pods.db", "sqlite://"], ids=["away", "without tables"])
@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda store: store.save([row()]), id="save"),
        pytest.param(lambda store: store.pods(), id="pods"),
        pytest.param(lambda store: store.open_rows(deployment="d", before=NOW), id="open_rows"),
        pytest.param(lambda store: store.forget(row()), id="forget"),
        pytest.param(lambda store: store.end(row(), phase="Lost", at=NOW), id="end"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_error_in_one_line(url: str, call: Callable[[PodStore], None]) -> None:
    """Whatever was asked of it."""
    store = PodStore(url)
    with pytest.raises(errors.StoreUnavailable, match=r"\Athe pods' table cannot be used: [^\n]+\Z"):
        call(store)
    store.close()


def test_a_sign_of_life_needs_no_tables() -> None:
    """But a database."""
    PodStore("sqlite://").ping()
    with pytest.raises(errors.StoreUnavailable):
        PodStore("sqlite:////no/such/folder/pods.db").ping()


@pytest.mark.parametrize("column", [one for one in POD.c if isinstance(one.type, sa.String)], ids=lambda one: one.name)
def test_a_text_of_any_kind_fits_into_its_column(store: PodStore, column: sa.Column[Any]) -> None:
    """PostgreSQL refuses a NUL and what is too long; one such row would keep all others from being written."""
    length = column.type.length  # type: ignore[attr-defined]
    for text in ("a\0b", "half \ud800 a character", "ü" * 3000):
        given = row(**{column.name: text})
        store.save([given])
        (found,) = store.pods()
        shown = text.replace("\0", "\\x00").replace("\ud800", "\\ud800")
        assert getattr(found, column.name) == shown[:length]
        store.forget(found)
    assert store.pods() == []


def test_an_attempt_whose_id_had_to_be_changed_is_found_by_its_id(store: PodStore) -> None:
    """By the very one that its sender chose."""
    odd = "x\0" * 300
    store.save([row(odd)])
    assert len(store.pods(attempt_ids=[odd])) == 1


def test_what_is_stored_as_it_is_is_not_touched(store: PodStore) -> None:
    """Emoji, line feeds and signs that a terminal would act on are text like any other."""
    text = "Straße 🚀\r\n\t\x1b[31m 'quoted' -- ; DROP TABLE pod"
    store.save([replace(row(), message=text, reason=text[:40])])
    assert (store.pods()[0].message, store.pods()[0].reason) == (text, text[:40])
