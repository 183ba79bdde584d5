"""What only Celery's application can answer: stored outcomes, workers that live, what was revoked.

Each call but `is_revoked` blocks for a bounded time, and may raise what the backend or the broker raise: they are made
in helper threads. An application without a result backend stores nothing, so nothing is ever stored already.
"""

import logging
from typing import Any

from celery import states
from celery.backends.base import DisabledBackend
from celery.worker import state as worker_state

from dispatcher import errors
from dispatcher.attempts import endings, status_store
from dispatcher.attempts.status_store import PodRow

logger = logging.getLogger(__name__)

PING_S = 2.0
"""How long other dispatchers have to answer before they are taken for silent."""


class BackendQuestions:
    """The `celery_side.Questions` of an application."""

    def __init__(self, app: Any, *, nodename: str) -> None:
        self._app = app
        self._nodename = nodename

    @property
    def stores_results(self) -> bool:
        """Whether the application has a result backend."""
        return not isinstance(self._app.backend, DisabledBackend)

    def has_outcome(self, attempt_id: str, *, besides: str | None = None) -> bool:
        """Whether a final outcome of a task is stored, but for one of this time."""
        stored_at = self.outcome_stored_at(attempt_id)
        return stored_at is not None and stored_at != besides

    def outcome_stored_at(self, attempt_id: str) -> str | None:
        """When the final outcome of a task was stored, as the backend says it; None where none is."""
        if not self.stores_results:
            return None
        # Celery keeps final states in memory: one that has expired or was flushed since (B23) would still be believed.
        meta = self._app.backend.get_task_meta(attempt_id, cache=False)
        return str(meta.get("date_done")) if meta["status"] in states.READY_STATES else None

    def store_lost(self, row: PodRow) -> str | None:
        """Stores the failure of an attempt whose pod is gone, unless an outcome is stored; the state stored then."""
        state = self._state(row.attempt_id)
        if state in states.READY_STATES or state == states.RETRY:  # a retry is a launch of its own
            return state
        details = {"reason": "PodDeleted", "cause": "infrastructure", "pod": row.name}
        lost = endings.diagnosed(errors.PodFailed(f"{row.name}: {status_store.LOST}", details))
        if self.stores_results:
            self._app.backend.store_result(row.attempt_id, lost, states.FAILURE)
        return "LOST"

    def alive(self) -> set[str] | None:
        """The names of the workers that answer a ping; None where not even this one's answer arrives."""
        try:
            answers = self._app.control.inspect(timeout=PING_S).ping() or {}
        except Exception as error:  # the broker may be away: then nobody is taken for gone
            logger.debug("no ping: %r", error)
            return None
        # Our own hub answers by the same broker: without that answer silence of the others means nothing.
        return set(answers) if self._nodename in answers else None

    def is_revoked(self, attempt_id: str) -> bool:
        """Whether a task was revoked. Celery's own set, of which this thread only reads."""
        return attempt_id in worker_state.revoked

    def _state(self, attempt_id: str) -> str | None:
        if not self.stores_results:
            return None
        return str(self._app.backend.get_task_meta(attempt_id)["status"])
