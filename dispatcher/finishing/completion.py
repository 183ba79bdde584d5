"""An attempt whose pod has ended gets its outcome: read from the pod, explained by the cluster's events. Step ⑦.

On the loop's thread. Nothing ends an attempt a second time: the table of moves does not know that.
"""

import logging
from dataclasses import replace

from dispatcher import errors
from dispatcher.attempts import endings
from dispatcher.attempts.attempt import Attempt
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.states import State
from dispatcher.background import Background
from dispatcher.finishing import result_reader
from dispatcher.kubeapi import client
from dispatcher.manifests import result_sidecar

logger = logging.getLogger(__name__)


class Completion:
    """Reads outcomes, each in a task of its own."""

    def __init__(
        self, kube: client.KubeClient, *, attempts: Attempts, background: Background, result_max_bytes: int
    ) -> None:
        self._client = kube
        self._attempts = attempts
        self._background = background
        self._result_max_bytes = result_max_bytes

    def finish(self, attempt: Attempt, report: result_sidecar.SidecarReport | None) -> None:
        """Its pod has said all, and the result sidecar `report`, where there is one."""
        # First the move, then the reading: events that come meanwhile find it ended, and end it no second time.
        if self._attempts.end(attempt, endings.of_pod()):
            self._background.spawn(self._read(attempt, report))

    def read_again(self, attempt: Attempt) -> None:
        """The reading of its outcome was interrupted."""
        report = attempt.sighting.result if attempt.sighting is not None else None
        self._background.spawn(self._read(attempt, report))

    async def _read(self, attempt: Attempt, report: result_sidecar.SidecarReport | None) -> None:
        epilogue: tuple[str, ...] = ()
        try:
            result, epilogue = await result_reader.read(
                self._client, attempt, attempt.seen, report=report, max_bytes=self._result_max_bytes
            )
        except Exception as error:
            # Whatever it was, the attempt needs an outcome: nobody would read
            # it again, and its task would wait for ever.
            logger.exception("an outcome could not be read attempt_id=%s pod=%s", attempt.id, attempt.pod.name)
            result = errors.PodFailed(
                f"the outcome of the pod {attempt.pod.name} could not be read: {error!r}",
                {"reason": "OutcomeUnreadable", "cause": "unknown", "pod": attempt.pod.name},
            )
        if attempt.state is State.ENDED:  # else it was closed meanwhile: another dispatcher has reported it
            ending = attempt.ending or endings.of_pod()
            self._attempts.result(attempt, replace(ending, result=result, epilogue=epilogue))
