"""The recorder on a real database: who waits for a row is called when it is written, and never for ever."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dispatcher import errors
from dispatcher.attempts import status_store, status_writer
from routing.store.store import Store

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROW = status_store.PodRow(
    attempt_id="a",
    retries=0,
    deployment="d",
    name="pod",
    namespace="default",
    queue="kubernetes",
    task="t",
    owner="o",
    phase="Pending",
    updated_at=NOW,
)


async def _asked(recording: status_writer.Recorder) -> None:
    """Returns when the recorder calls back."""
    stored = asyncio.get_running_loop().create_future()
    recording.record(ROW)
    recording.when_stored(lambda: stored.set_result(None))
    await asyncio.wait_for(stored, 10)


def test_P24_who_waits_for_a_row_is_called_when_it_stands_in_the_record(tmp_path: Path) -> None:
    """So a message is acknowledged only when a row says that there is a pod."""
    url = f"sqlite:///{tmp_path / 'podyard.db'}"
    store = Store.open(url)
    store.upgrade()

    async def work() -> list[str]:
        recording = status_writer.Recorder(lambda: status_store.PodStore(url))
        running = asyncio.create_task(recording.run())
        await _asked(recording)
        found = [
            row.name for row in status_store.PodStore(url).open_rows(deployment="d", before=NOW + timedelta(seconds=1))
        ]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return found

    assert asyncio.run(work()) == ["pod"]
    store.close()


def test_a_database_that_is_away_keeps_nobody_waiting() -> None:
    """The pod's name and the claim still guard the attempt; its row is written later."""

    def away() -> status_store.PodStore:
        raise errors.StoreUnavailable("away")

    async def work() -> None:
        recording = status_writer.Recorder(away)
        running = asyncio.create_task(recording.run())
        await _asked(recording)
        await _asked(recording)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(work())
