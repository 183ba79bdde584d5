"""The writer of the table of pods on a real database: events wait for their rows, and never for ever."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dispatcher.attempts import status_store
from dispatcher.attempts.celery_side import Event, Launched
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.status_writer import StatusWriter
from dispatcher.options import Options, QueueProfile
from routing.store.store import Store
from tests import builders, parts


class Celery:
    """Celery's side: what was posted to it."""

    def __init__(self) -> None:
        self.posted: list[Event] = []

    def post(self, event: Event) -> None:
        """Takes an event."""
        self.posted.append(event)


async def posted_after(url: str, *, times: int = 1) -> tuple[list[str], list[Event]]:
    """The pods in the table when the event of the last launch was posted, and all events."""
    celery, attempts = Celery(), Attempts(is_strict=True)
    writer = StatusWriter(
        Options(profile_for=lambda _: QueueProfile(), app_path="", database_url=url, deployment="d"),
        owner="o",
        attempts=attempts,
        celery=celery,
    )
    running = asyncio.create_task(writer.run())
    for _ in range(times):
        launched = builders.launched(attempts, task_id="a") if not len(attempts) else next(iter(attempts))
        writer.write(launched)
        count = len(celery.posted)
        writer.post_when_stored(Launched(delivery=launched.delivery, pod=launched.pod.name))
        await asyncio.to_thread(parts.eventually, lambda count=count: len(celery.posted) > count, 10)
    soon = datetime.now(UTC) + timedelta(seconds=1)
    try:
        found = [row.name for row in status_store.PodStore(url).open_rows(deployment="d", before=soon)]
    except Exception:  # the database may be away
        found = []
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return found, celery.posted


def test_P24_an_event_that_waits_for_a_row_is_posted_when_it_stands_in_the_record(tmp_path: Path) -> None:
    """So a message is acknowledged only when a row says that there is a pod."""
    url = f"sqlite:///{tmp_path / 'podyard.db'}"
    store = Store.open(url)
    store.upgrade()

    found, posted = asyncio.run(posted_after(url))

    assert found == ["pod-a"]
    assert len(posted) == 1
    store.close()


def test_a_database_that_is_away_keeps_nobody_waiting(tmp_path: Path) -> None:
    """The pod's name and the claim still guard the attempt; its row is written later."""
    found, posted = asyncio.run(posted_after(f"sqlite:///{tmp_path / 'no' / 'such' / 'folder.db'}", times=2))

    assert found == []
    assert len(posted) == 2
