"""Early: attempts that came before the API server had answered this dispatcher once. On the loop's thread.

They wait for it as others do (`api_server` of `dispatcher.attempts.wait_rules`), with the reason in the record and the
same deadline. One that was delivered before may have a pod of another dispatcher: it waits on until somebody can look.
"""

import asyncio
import time

from dispatcher.attempts.attempt import Attempt, Register
from dispatcher.attempts.status_notes import Notes
from dispatcher.attempts.worker_port import Hub
from dispatcher.finishing import result_reader

EVERY_S = 0.5


class Early:
    """Keeps them, in the order of their coming."""

    def __init__(self, *, register: Register, notes: Notes, hub: Hub) -> None:
        self._register = register
        self._notes = notes
        self._hub = hub
        self._attempts: list[Attempt] = []

    def __contains__(self, attempt: Attempt) -> bool:
        return attempt in self._attempts

    def add(self, attempt: Attempt, *, trouble: str | None) -> None:
        """Takes one in; `trouble` is what keeps us from the API server."""
        attempt.reason, attempt.detail = "ApiServerUnavailable", trouble
        self._attempts.append(attempt)
        self._notes.waiting(attempt)

    def remove(self, attempt: Attempt) -> None:
        """Lets go of one."""
        self._attempts.remove(attempt)

    def take_all(self) -> list[Attempt]:
        """All of them: the API server has answered."""
        attempts, self._attempts = self._attempts, []
        return attempts

    async def run(self) -> None:
        """Ends what has waited too long, until it is cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            now_s = time.monotonic()
            for attempt in list(self._attempts):
                self._check(attempt, now_s)

    def _check(self, attempt: Attempt, now_s: float) -> None:
        wait = attempt.wait
        if wait is None or not wait.is_over(now_s) or wait.rule.action == "wait" or attempt.message.is_repeat:
            return
        self.remove(attempt)
        self._register.move(attempt, "ended")
        failure = result_reader.diagnosed(result_reader.too_late(attempt, wait))
        facts = {key: failure.details.get(key) for key in ("reason", "cause")}
        self._notes.note(attempt, phase="Failed", message=str(failure), **facts)
        self._hub.ended(attempt, failure)
