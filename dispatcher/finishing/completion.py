"""Endings: every way in which an attempt of ours gets an outcome, each noted and told to Celery's side once.

Its pod ended, was late, is gone, or was refused; step ⑦ of the flow. Whoever ends an attempt moves it to the stage
`ended` first: nothing ends it a second time. On the loop's thread.
"""

import logging
from collections.abc import Awaitable, Callable

from dispatcher import errors
from dispatcher.attempts.attempt import Attempt, Register
from dispatcher.attempts.status_notes import Notes
from dispatcher.attempts.worker_port import Hub
from dispatcher.background import Background
from dispatcher.finishing import result_reader
from dispatcher.kubeapi import client
from dispatcher.manifests import result_sidecar
from dispatcher.status import observation

logger = logging.getLogger(__name__)


class Endings:
    """Ends attempts. `pump` is called when one has given its slot back."""

    def __init__(
        self,
        cluster: client.KubeClient,
        *,
        register: Register,
        notes: Notes,
        hub: Hub,
        background: Background,
        pump: Callable[[], None],
        result_max_bytes: int,
    ) -> None:
        self._cluster = cluster
        self._register = register
        self._notes = notes
        self._hub = hub
        self._background = background
        self._pump = pump
        self._result_max_bytes = result_max_bytes

    def ended(self, attempt: Attempt, seen: observation.Observation, told: result_sidecar.Told | None = None) -> None:
        """Its pod has said all: the outcome is read, and told to Celery's side."""
        self._register.move(attempt, "ended")
        self._pump()
        reading = result_reader.read(self._cluster, attempt, seen, told=told, max_bytes=self._result_max_bytes)
        self._background.spawn(self._tell(attempt, reading))

    def hold(self, attempt: Attempt) -> None:
        """Its pod is about to be deleted by us: what the watch says of it is no news until `too_late` or `release`."""
        self._register.move(attempt, "ended")

    def release(self, attempt: Attempt) -> None:
        """Its pod was not deleted: the attempt goes on."""
        self._register.move(attempt, "created")

    def too_late(self, attempt: Attempt, failure: errors.PodFailed) -> None:
        """It waited longer than its queue allows, and nothing of it can start any more."""
        self._register.move(attempt, "ended")
        facts = {key: failure.details.get(key) for key in ("reason", "cause", "node")}
        self._notes.note(attempt, phase="Failed", message=str(failure), **facts)
        self._pump()
        self._hub.ended(attempt, failure)

    def refused(self, attempt: Attempt, error: BaseException) -> None:
        """It gets no pod: neither builder nor API server wants it."""
        self._register.move(attempt, "ended")
        details = getattr(error, "details", {})
        reason, cause = details.get("reason"), details.get("cause")
        self._notes.note(attempt, phase="Failed", reason=reason, message=str(error), cause=cause)
        self._hub.ended(attempt, error)

    def lost(self, attempt: Attempt, owner: str) -> None:
        """Its pod was asked for by `owner`, is not there, and no outcome is stored: nobody can say whether it ran."""
        self._register.move(attempt, "ended")
        lost = errors.PodFailed(
            f"{owner or 'a dispatcher'} asked for the pod {attempt.pod} and told no outcome, and there is no such pod "
            "now: it was deleted, or the dispatcher ended before the pod was made; it is not run again under this id",
            {"reason": "PodLost", "cause": "infrastructure", "pod": attempt.pod},
        )
        logger.warning("pod lost attempt_id=%s pod=%s owner=%s", attempt.message.id, attempt.pod, owner)
        self._notes.note(attempt, phase="Lost", reason="PodLost", message=str(lost), cause="infrastructure")
        self._hub.ended(attempt, lost)

    def missed(self, attempt: Attempt) -> None:
        """Its pod is not in the list of its namespace: it is looked for, and ended if it is gone."""
        self._background.spawn(self._look_for(attempt))

    async def _look_for(self, attempt: Attempt) -> None:
        try:
            pod = await self._cluster.read_pod(attempt.namespace, attempt.pod)
        except errors.ApiError as error:
            if error.status == 404 and attempt.stage == "created":
                self._gone(attempt)
        except errors.ApiUnavailable:
            return  # the next list looks again
        else:
            if attempt.stage != "created":
                return
            if pod["metadata"]["uid"] == attempt.uid:
                self._register.remove(attempt)
                self._hub.dropped(attempt)
            else:
                self._gone(attempt)  # its own is gone: this one was made under its name

    def _gone(self, attempt: Attempt) -> None:
        self._register.move(attempt, "ended")
        gone = errors.PodFailed(
            f"the pod {attempt.pod} was deleted while nobody watched; nothing is known of its end",
            {"reason": "PodDeleted", "cause": "infrastructure", "pod": attempt.pod},
        )
        self._notes.note(attempt, phase="Failed", reason="PodDeleted", message=str(gone), cause="infrastructure")
        attempt.uid = None
        self._hub.ended(attempt, gone)

    async def _tell(self, attempt: Attempt, reading: Awaitable[result_reader.Result]) -> None:
        try:
            result = await reading
        except Exception as error:
            logger.exception("an outcome could not be read attempt_id=%s pod=%s", attempt.message.id, attempt.pod)
            result = errors.PodFailed(
                f"the outcome of the pod {attempt.pod} could not be read: {error!r}",
                {"reason": "OutcomeUnreadable", "cause": "unknown", "pod": attempt.pod},
            )
        self._hub.ended(attempt, result)
