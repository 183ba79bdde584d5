"""Rows are written soon, in batches, and nobody waits for them for ever; a database that is away costs nothing else."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from dispatcher import errors
from dispatcher.attempts import endings, status_store, status_writer
from dispatcher.attempts.attempt import Attempt, Closed
from dispatcher.attempts.celery_side import Event, Launched
from dispatcher.attempts.limits import BlockedReason
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.states import State
from dispatcher.attempts.status_store import PodRow, PodStore
from dispatcher.attempts.status_writer import StatusWriter
from dispatcher.options import Options, QueueProfile
from tests import builders, fast_time
from tests.cluster_side import CelerySide

pytestmark = pytest.mark.filterwarnings("ignore:Selection of the SingletonThreadPool")  # either class will do


class World:
    """A writer and its database."""

    def __init__(self, url: str | None, celery: type[CelerySide] = CelerySide) -> None:
        self.url = url
        self.attempts = Attempts(is_strict=True)
        self.celery = celery()
        options = Options(
            profile_for=lambda queue: QueueProfile(), app_path="", image="i", database_url=url, deployment="d"
        )
        self.writer = StatusWriter(options, owner="o@host", attempts=self.attempts, celery=self.celery)

    def launched(self, **fields: Any) -> tuple[Attempt, Launched]:
        """An attempt whose pod exists, its row to be written, and the event that waits for that."""
        one = builders.launched(self.attempts, **fields)
        event = Launched(delivery=one.delivery, pod=one.pod.name)
        self.writer.write(one)
        self.writer.post_when_stored(event)
        return one, event

    def rows(self) -> list[PodRow]:
        """What stands in the database."""
        assert self.url is not None
        store = PodStore(self.url)
        found = store.pods()
        store.close()
        return found


@pytest.fixture
def database() -> Iterator[str]:
    """A database with the table, in memory."""
    url = f"sqlite:///file:{uuid4()}?mode=memory&cache=shared&uri=true"
    store = PodStore(url)
    status_store.METADATA.create_all(store._engine)
    yield url
    store.close()


def using(test: Callable[[World], Awaitable[Any]], given: World | str | None, *, runs: bool = True) -> World:
    """Runs a test while the writer does, and then ends the writer."""

    async def run() -> World:
        world = given if isinstance(given, World) else World(given)
        running = asyncio.create_task(world.writer.run()) if runs else None
        await test(world)
        if running is not None:
            assert not running.done(), "it writes for ever"
            running.cancel()
            await asyncio.wait([running])
        return world

    return fast_time.run(run())


def test_an_event_is_posted_when_the_row_of_its_pod_stands_in_the_record(database: str) -> None:
    """Whatever is killed from then on, there is somebody who can tell that there was a pod."""

    stood: list[PodRow] = []

    class Celery(CelerySide):
        def post(self, event: Event) -> None:
            stood.extend(world.rows())
            super().post(event)

    async def test(world: World) -> None:
        one, event = world.launched()
        assert world.celery.posted == []
        await asyncio.sleep(1)
        (row,) = stood
        assert (row.attempt_id, row.name, row.phase, row.owner, row.deployment) == (
            one.id,
            one.pod.name,
            "Pending",
            "o@host",
            "d",
        )
        assert world.celery.posted == [event]

    world = World(database, Celery)
    using(test, world)


def test_where_somebody_waits_it_is_written_at_once(database: str) -> None:
    """Else a little later, so that many changes are one write."""

    async def test(world: World) -> None:
        await asyncio.sleep(10 * status_writer.EVERY_S)
        world.launched()
        await asyncio.sleep(2 * status_writer.SOON_S)
        assert len(world.celery.posted) == 1

    using(test, database)


def test_events_keep_their_order(database: str) -> None:
    """Those of one batch, and those of the next."""

    async def test(world: World) -> None:
        events = []
        for _ in range(5):
            events.append(world.launched()[1])
            events.append(world.launched()[1])
            await asyncio.sleep(status_writer.SOON_S)
        await asyncio.sleep(2 * status_writer.EVERY_S)
        assert world.celery.posted == events

    using(test, database)


def test_of_an_attempt_only_the_newest_row_is_written(database: str) -> None:
    """Rows are whole, and replace each other."""

    async def test(world: World) -> None:
        one, _ = world.launched()
        world.attempts.saw(one, builders.seen(one, builders.running()), uid=one.pod.uid or "")
        world.attempts.started(one)
        world.writer.write(one)
        assert len(world.writer._rows) == 1
        await world.writer.flush()
        (row,) = world.rows()
        assert (row.phase, row.started_at) == ("Running", one.started_at)

    using(test, database, runs=False)


def test_retries_of_one_attempt_are_rows_of_their_own(database: str) -> None:
    """The row of an earlier launch stays as it ended."""

    async def test(world: World) -> None:
        first, _ = world.launched(task_id="a")
        world.attempts.close(first, Closed.TERMINATED, endings.revoked(first))
        world.writer.write(first)
        world.launched(task_id="a", headers={"retries": 1})
        await world.writer.flush()
        assert {(row.retries, row.phase) for row in world.rows()} == {(0, "Failed"), (1, "Pending")}

    using(test, database, runs=False)


def test_a_look_notes_what_an_attempt_waits_for_though_nothing_is_stored() -> None:
    """Deadlines need it where there is no database, too."""

    async def test(world: World) -> None:
        one = builders.queued(world.attempts)
        world.attempts.block(one, BlockedReason("QueueLimit", "max_pods is 1"))
        world.writer.write(one)
        assert one.wait is not None
        assert (one.wait.kind, one.wait.reason) == ("slot", "QueueLimit")
        world.attempts.admit(one)
        world.writer.write(one)
        assert one.wait is None
        assert world.writer._rows == {}

    using(test, None)


def test_without_a_database_events_are_posted_at_once() -> None:
    """There is no row to wait for."""

    async def test(world: World) -> None:
        _, event = world.launched()
        assert world.celery.posted == [event]

    using(test, None, runs=False)


def test_a_database_that_is_away_keeps_nobody_waiting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One line says so, one says when it is back; then all that was kept is written."""
    caplog.set_level("INFO")
    folder = tmp_path / "not mounted yet"
    url = f"sqlite:///{folder / 'pods.db'}"

    async def test(world: World) -> None:
        first, event = world.launched()
        await asyncio.sleep(5)
        assert world.celery.posted == [event]
        second, later = world.launched()
        assert world.celery.posted == [event, later], "while it is away nobody waits for the next try"
        await asyncio.sleep(5)
        folder.mkdir()
        store = PodStore(url)
        status_store.METADATA.create_all(store._engine)
        store.close()
        await asyncio.sleep(5)
        assert {row.attempt_id for row in world.rows()} == {first.id, second.id}
        _, last = world.launched()
        assert last not in world.celery.posted, "it is waited for again"
        await asyncio.sleep(1)
        assert last in world.celery.posted

    using(test, url)
    said = [record.getMessage().partition(":")[0] for record in caplog.records if "status_writer" in record.name]
    assert said == ["pod status is not stored for now", "pod status is stored again"]


def test_while_a_database_is_away_newer_rows_replace_those_that_are_kept(tmp_path: Path) -> None:
    """Not the other way round when the write comes back."""

    async def test(world: World) -> None:
        one, _ = world.launched()
        await world.writer.flush()
        world.attempts.close(one, Closed.TERMINATED, endings.revoked(one))
        world.writer.write(one)
        await world.writer.flush()
        assert [row.phase for row in world.writer._rows.values()] == ["Failed"]

    using(test, f"sqlite:///{tmp_path / 'no' / 'pods.db'}", runs=False)


def test_the_rows_that_are_kept_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go first."""
    monkeypatch.setattr(status_writer, "KEPT_ROWS", 3)

    async def test(world: World) -> None:
        made = [world.launched()[0] for _ in range(3)]
        await world.writer.flush()
        made += [world.launched()[0] for _ in range(2)]
        assert [row.attempt_id for row in world.writer._rows.values()] == [one.id for one in made[-3:]]

    using(test, f"sqlite:///{tmp_path / 'no' / 'pods.db'}", runs=False)


@pytest.mark.parametrize("url", ["sqlite:///", "mysql+nodriver://h/d", "no url at all"])
def test_whatever_keeps_rows_from_being_written_nobody_waits_for_them(url: str) -> None:
    """A driver that is not installed, a URL that cannot be read, a table that was not made: the loop goes on."""

    async def test(world: World) -> None:
        _, event = world.launched()
        await asyncio.sleep(2)
        assert world.celery.posted == [event]
        assert len(world.writer._rows) == 1

    using(test, url)


ODD = {"nul": "a\0b", "half a character": "\ud800", "long": "x" * 100_000, "both": "\udfff\0" * 300}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD.keys())
def test_one_odd_row_keeps_no_other_from_being_written(database: str, text: str) -> None:
    """What stands in it may have been written by a container, or chosen by a sender."""

    async def test(world: World) -> None:
        bad, _ = world.launched(task_id=f"bad-{text}", queue=f"queue-{text}")
        good, _ = world.launched(task_id="good")
        failure = errors.PodFailed(text, {"reason": text})
        world.attempts.close(bad, Closed.TERMINATED, endings.of_failure(failure))
        world.writer.write(bad)
        await asyncio.sleep(1)
        phases = {row.attempt_id: row.phase for row in world.rows()}
        assert phases.pop("good") == "Pending"
        assert list(phases.values()) == ["Failed"]
        assert good.state is State.PENDING

    using(test, database)


def test_at_its_end_it_writes_what_is_left(database: str) -> None:
    """And posts what waited for that."""

    async def test(world: World) -> None:
        await asyncio.sleep(1)
        world.launched()

    world = using(test, database)
    assert (len(world.rows()), len(world.celery.posted)) == (1, 1)


def test_an_end_in_the_middle_of_a_write_loses_neither_rows_nor_events(database: str) -> None:
    """The thread that writes cannot be stopped: it is written once more."""

    async def test(world: World) -> None:
        world.launched()
        while world.writer._rows:  # until the write has begun
            await asyncio.sleep(0)
        assert world.celery.posted == []

    world = using(test, database)
    assert (len(world.rows()), len(world.celery.posted)) == (1, 1)


def test_at_its_end_a_database_that_is_away_is_tried_once(tmp_path: Path) -> None:
    """A stop takes a known time."""

    async def test(world: World) -> None:
        await asyncio.sleep(1)
        world.launched()

    world = using(test, f"sqlite:///{tmp_path / 'no' / 'pods.db'}")
    assert len(world.celery.posted) == 1
