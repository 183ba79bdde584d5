"""Notes: what people may know of an attempt, as a row of the pods' table. On the loop's thread."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from dispatcher.attempts import current_wait
from dispatcher.attempts.attempt import Attempt
from dispatcher.attempts.status_store import PodRow, PodStore
from dispatcher.attempts.status_writer import Recorder
from dispatcher.options import Options


class Notes:
    """Writes rows through the recorder; nothing where the options name no database."""

    def __init__(self, options: Options, *, owner: str) -> None:
        self._deployment = options.deployment
        self._owner = owner
        url = options.database_url
        self._recorder = Recorder((lambda: PodStore(url)) if url else None)

    async def run(self) -> None:
        """Writes for ever; at cancellation what is left, once."""
        await self._recorder.run()

    def note(self, attempt: Attempt, *, phase: str, **facts: Any) -> None:
        """The attempt is in `phase` now; `facts` are further fields of `PodRow`. While it waits, its wait says why."""
        now_s = time.monotonic()
        attempt.wait = current_wait.look(attempt, now_s=now_s)
        facts |= current_wait.facts(attempt, now_s=now_s)
        row = PodRow(
            attempt_id=attempt.message.id,
            retries=attempt.message.retries,
            deployment=self._deployment,
            name=attempt.pod,
            namespace=attempt.namespace,
            uid=attempt.uid,
            queue=attempt.queue,
            task=attempt.message.shown_name,
            owner=self._owner,
            phase=phase,
            updated_at=datetime.now(UTC),
            received_at=attempt.received_at,
            created_at=attempt.created_at,
            started_at=attempt.started_at,
            **facts,
        )
        self._recorder.record(row)

    def when_stored(self, call: Callable[[], None]) -> None:
        """Calls back once what was noted so far is written, or cannot be."""
        self._recorder.when_stored(call)

    def waiting(self, attempt: Attempt) -> None:
        """It has no pod yet, and `attempt.reason` says why."""
        self.note(attempt, phase="Waiting")

    def pending(self, attempt: Attempt) -> None:
        """Its pod does not run yet, and something new is known of why."""
        self.note(attempt, phase="Pending", node=attempt.seen.node if attempt.seen else None)
