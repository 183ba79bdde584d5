"""The reconciler: takes attempts that have changed, has decided what follows, and carries it out. On the loop's thread.

The only place that carries out decisions: what takes calls to the API server is begun here, and comes back as a change.
"""

import logging
import time
from dataclasses import dataclass

from dispatcher.admission.admission import Admission
from dispatcher.attempts.attempt import Attempt, Closed
from dispatcher.attempts.celery_side import CelerySide, Dropped, Ended, Launched, Started, Withdrawn
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.status_writer import StatusWriter
from dispatcher.finishing.completion import Completion
from dispatcher.manifests import result_sidecar
from dispatcher.watching import deadlines, decision
from dispatcher.watching.deadlines import Deadlines
from dispatcher.watching.decision import Do
from dispatcher.watching.event_hints import EventHints
from dispatcher.watching.pod_finder import PodFinder

logger = logging.getLogger(__name__)

_LOOKS = 8
"""More steps in a row than an attempt can take."""


@dataclass(frozen=True, kw_only=True)
class Executors:
    """What works with the API server once there is one."""

    admission: Admission
    completion: Completion
    deadlines: Deadlines
    event_hints: EventHints
    pod_finder: PodFinder


class Reconciler:
    """Looks at attempts. `executors` is None until the API server has answered once."""

    def __init__(self, attempts: Attempts, *, status: StatusWriter, celery: CelerySide) -> None:
        self._attempts = attempts
        self._status = status
        self._celery = celery
        self.executors: Executors | None = None

    async def run(self) -> None:
        """Looks at what has changed, until it is cancelled."""
        while True:
            # One at a time and without an await in between: every look sees a state that nobody is changing.
            for attempt in await self._attempts.changed.take():
                try:
                    self._look_at_change(attempt)
                except Exception:
                    logger.exception("an attempt could not be looked at attempt_id=%s", attempt.id)

    def look_at_all(self) -> None:
        """Looks at every attempt: time alone may have changed what follows."""
        for attempt in self._attempts:
            if attempt in self._attempts.changed:
                continue  # it is about to be looked at, once its row says what has changed: nothing is reported before
            try:
                self.look(attempt)
            except Exception:
                logger.exception("an attempt could not be looked at attempt_id=%s", attempt.id)
        if self.executors is not None:
            self.executors.event_hints.forget_started()

    def look(self, attempt: Attempt) -> None:
        """Decides and acts, as long as that leads on at once."""
        for _ in range(_LOOKS):
            now = decision.Now(time.monotonic(), is_connected=self.executors is not None)
            if not self._carry_out(attempt, decision.decide(attempt, now), now):
                return

    def _look_at_change(self, attempt: Attempt) -> None:
        # The row before the report: `Launched` lets Celery acknowledge, and then only the record knows of the attempt.
        # What was dropped is another dispatcher's row, unless it is known here how it ended.
        if attempt.closed is not Closed.DROPPED or attempt.ending is not None:
            self._status.write(attempt)
            if self.executors is not None:
                self.executors.deadlines.warn_of_no_node(attempt)
        self.look(attempt)

    def _carry_out(self, attempt: Attempt, do: Do, now: decision.Now) -> bool:
        """Whether to decide again at once.

        Moves and reports take no time and lead on. What takes calls to the API server is only begun, and comes back as
        a change, so that one slow call holds up no other attempt.
        """
        match do:
            case Do.NOTHING:
                return False
            case Do.START:
                return self._attempts.started(attempt)
            case Do.COLLECT:
                return self._attempts.collect(attempt)
            case Do.DROP:
                return self._attempts.close(attempt, Closed.DROPPED)
            case _ if do in _REPORTS:
                self._report(attempt, do)
                return True
            case _:
                self._execute(attempt, do, now)
                return False

    def _execute(self, attempt: Attempt, do: Do, now: decision.Now) -> None:
        executors = self.executors
        if executors is None:
            if do is Do.EXPIRE:  # decided without an API server only for what has no pod for certain
                deadlines.end(self._attempts, attempt)
            return
        match do:
            case Do.FINISH | Do.FINISH_WITHOUT_RESULT:
                executors.admission.withdraw(attempt)  # where a create that seemed to have failed had worked
                sighting = attempt.sighting
                report = sighting.result if sighting is not None else None
                if do is Do.FINISH_WITHOUT_RESULT:
                    # What the sidecar said last is "waiting", which is no reason that people could be given.
                    report = result_sidecar.SidecarReport(kind="lost")
                executors.completion.finish(attempt, report)
                executors.admission.room.set()
            case Do.FIND:
                executors.pod_finder.find(attempt)
            case Do.WARN:
                executors.deadlines.warn(attempt)
            case Do.EXPIRE:
                executors.deadlines.expire(attempt)
            case Do.READ_EVENTS:
                executors.event_hints.look(attempt, now_mono_s=now.mono_s)

    def _report(self, attempt: Attempt, do: Do) -> None:
        """Posts the event to Celery's side, once."""
        delivery, pod = attempt.delivery, attempt.pod.name
        if do is Do.REPORT_LAUNCHED:
            # Before the post: should that fail, the attempt must not be reported again at each look, twice a second.
            self._attempts.reported(attempt, launched=True)
            self._status.post_when_stored(Launched(delivery=delivery, pod=pod))
        elif do is Do.REPORT_STARTED and attempt.started_at is not None:
            self._attempts.reported(attempt, started=True)
            # Not behind the row: nothing is acknowledged by it, and people see a start at once.
            self._celery.post(
                Started(
                    delivery=delivery,
                    pod=pod,
                    started_at=attempt.started_at,
                    created_at=attempt.pod.created_at,
                    owned_mono_s=attempt.owned_mono_s,
                )
            )
        else:
            self._attempts.reported(attempt, ended=True)
            self._celery.post(_last_event(attempt, do))


_REPORTS = frozenset({Do.REPORT_LAUNCHED, Do.REPORT_STARTED, Do.REPORT_ENDED, Do.REPORT_DROPPED, Do.REPORT_WITHDRAWN})


def _last_event(attempt: Attempt, do: Do) -> Ended | Dropped | Withdrawn:
    """The last event of an attempt."""
    if do is Do.REPORT_DROPPED:
        return Dropped(delivery=attempt.delivery, pod=attempt.pod.name)
    if do is Do.REPORT_WITHDRAWN:
        return Withdrawn(delivery=attempt.delivery, owned_mono_s=attempt.owned_mono_s)
    ending = attempt.ending
    assert ending is not None and ending.result is not None  # the decision has seen it
    return Ended(
        delivery=attempt.delivery,
        pod=attempt.pod.name,
        result=ending.result,
        started_at=attempt.started_at,
        ended_at=attempt.ended_at,
        owned_mono_s=attempt.owned_mono_s,
    )
