"""Deadlines: what becomes of an attempt whose wait has lasted as long as its rule allows.

Where the rule is to wait on, people are warned. Else the attempt ends, but never while it may run: a pod is deleted
first, and only as it was read last, so that one which has started meanwhile is left alone and its attempt goes on.
While the API server gives no clear answer nothing ends. On the loop's thread.
"""

import logging
import time
from collections.abc import Mapping
from typing import Any

from dispatcher import errors
from dispatcher.admission.admission import Admission
from dispatcher.attempts import endings, sightings, wait_rules
from dispatcher.attempts.attempt import Attempt
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.states import State
from dispatcher.background import Background
from dispatcher.finishing import cleanup, result_reader
from dispatcher.finishing.cleanup import Cleanup
from dispatcher.kubeapi import client
from dispatcher.manifests import labels, names
from dispatcher.status import reasons

logger = logging.getLogger(__name__)

AGAIN_S = 5.0
"""How long an attempt that could not be ended is left in peace."""
WARN_AGAIN_S = 600.0
"""Waits that are too long and go on are warned of at most so often for each queue and kind."""


class Deadlines:
    """Acts on waits that have expired. `admission` is None until the API server has answered once."""

    def __init__(
        self,
        kube: client.KubeClient,
        *,
        owner: str,
        attempts: Attempts,
        admission: Admission,
        cleanup: Cleanup,
        background: Background,
    ) -> None:
        self._client = kube
        self._owner = names.label_value(owner)
        self._attempts = attempts
        self._admission = admission
        self._cleanup = cleanup
        self._background = background
        self._warned_mono_s: dict[tuple[str, str], float] = {}
        """(queue, kind) -> when it was warned of last."""
        self._again_mono_s: dict[Attempt, float] = {}
        """When to try once more to end an attempt."""

    def warn(self, attempt: Attempt) -> None:
        """A wait is too long, and goes on."""
        wait, now_mono_s = attempt.wait, time.monotonic()
        if wait is None:
            return
        if not self._may_warn(attempt.queue, wait.kind, now_mono_s):
            return
        logger.warning(
            "waits too long and goes on attempt_id=%s queue=%s wait=%s seconds=%.0f reason=%s: %s",
            *(attempt.id, attempt.queue, wait.kind, now_mono_s - wait.since_mono_s, wait.reason, wait.detail),
        )

    def warn_of_no_node(self, attempt: Attempt) -> None:
        """The scheduler has found no node for its pod: said as it begins, since waiting alone may not help."""
        wait = attempt.wait
        if wait is None or wait.reason != reasons.UNSCHEDULABLE:
            return
        if self._may_warn(attempt.queue, reasons.UNSCHEDULABLE, time.monotonic()):
            logger.warning(
                "no node takes a pod attempt_id=%s queue=%s namespace=%s pod=%s: %s",
                *(attempt.id, attempt.queue, attempt.namespace, attempt.pod.name, wait.detail),
            )

    def _may_warn(self, queue: str, kind: str, now_mono_s: float) -> bool:
        """Whether this was not said for a while; it counts as said now."""
        if now_mono_s - self._warned_mono_s.get((queue, kind), -WARN_AGAIN_S) < WARN_AGAIN_S:
            return False
        self._warned_mono_s[queue, kind] = now_mono_s
        return True

    def expire(self, attempt: Attempt) -> None:
        """A wait is too long, and the attempt is ended: at once where there is no pod."""
        wait = attempt.wait
        # Asked for twice a second as long as the deadline has passed: what
        # could not be ended is left alone for a while.
        if wait is None or self._again_mono_s.get(attempt, 0.0) > time.monotonic():
            return
        if attempt.state in (State.QUEUED, State.PARKED):
            # First: while its pod is looked for it must not be launched once more.
            self._admission.withdraw(attempt)
            if not attempt.launch.may_have_pod:
                end(self._attempts, attempt)
                return
        if self._attempts.expire(attempt):
            self._background.spawn(self._expire(attempt, wait))

    async def _expire(self, attempt: Attempt, wait: wait_rules.Wait) -> None:
        was_launch = attempt.state is State.EXPIRING_LAUNCH
        is_ended = False
        try:
            # By a read, not by what the watch said last: who ends it must know how the pod is now.
            pod = await self._read(attempt)
            is_ended = await (self._end_launch(attempt, pod) if was_launch else self._end_pod(attempt, wait, pod))
        except (errors.ApiError, errors.ApiUnavailable) as error:
            logger.info("not ended at its deadline yet attempt_id=%s: %s", attempt.id, error)
        finally:
            # Cleared here: nobody says to this class that an attempt has ended.
            self._again_mono_s = {one: at for one, at in self._again_mono_s.items() if one.state is not State.CLOSED}
            # In `finally`: a cancelled task must not leave it in a state in which nothing is decided.
            if not is_ended and attempt.state in (State.EXPIRING_LAUNCH, State.EXPIRING_POD):
                self._again_mono_s[attempt] = time.monotonic() + AGAIN_S
                self._attempts.resume(attempt)
                if was_launch:
                    self._admission.add(attempt)

    async def _end_launch(self, attempt: Attempt, pod: Mapping[str, Any] | None) -> bool:
        """Whether it ended: a create without an answer had made no pod. Else the launcher finds it under its name."""
        if pod is None and attempt.state is State.EXPIRING_LAUNCH:
            end(self._attempts, attempt)
        return pod is None

    async def _end_pod(self, attempt: Attempt, wait: wait_rules.Wait, pod: Mapping[str, Any] | None) -> bool:
        """Whether it ended: its pod is not there, or goes unstarted."""
        # From the wait as it was at its deadline: the attempt's own may be another by now.
        failure = endings.diagnosed(endings.too_late(attempt, wait))
        epilogue: tuple[str, ...] = ()
        if pod is not None and labels.owner_of(pod) != self._owner:
            self._attempts.missed(attempt)  # another dispatcher has taken it over: it is that one's to end
            return False
        if pod is not None:
            # What was read counts as seen, so that a start shows itself whether the watch has brought it or not.
            self._attempts.observed(attempt, pod, now_mono_s=time.monotonic())
            if not _is_unstarted(attempt):
                logger.info("goes on at its deadline, its pod has started attempt_id=%s", attempt.id)
                return False
            # Before the delete: events and logs of init containers are gone with the pod, or soon after.
            failure, epilogue = await result_reader.explained(self._client, attempt, endings.too_late(attempt, wait))
            await self._save_log(attempt, epilogue)
            # Looked at once more behind those calls, and the server compares
            # the version: who has started meanwhile lives.
            if not _is_unstarted(attempt) or not await self._client.delete_unchanged(pod):
                return False
        if attempt.state is not State.EXPIRING_POD:
            return True  # it was revoked meanwhile
        return self._attempts.end(attempt, endings.of_failure(failure, is_pod_gone=True, epilogue=epilogue))

    async def _read(self, attempt: Attempt) -> Mapping[str, Any] | None:
        """The pod of an attempt; None where there is none, or another one of its name."""
        pod = await self._client.find_pod(attempt.namespace, attempt.pod.name)
        return pod if pod is not None and sightings.is_of(attempt, pod) else None

    async def _save_log(self, attempt: Attempt, epilogue: tuple[str, ...]) -> None:
        """Init containers may have printed something."""
        try:
            await self._cleanup.save_log(cleanup.ended_attempt(attempt, is_success=False, epilogue=epilogue))
        except (errors.ApiError, errors.ApiUnavailable, OSError) as error:
            logger.info("its log was not saved attempt_id=%s: %s", attempt.id, error)


def end(attempts: Attempts, attempt: Attempt) -> None:
    """Ends an attempt at the deadline of its wait; it has no pod."""
    if attempt.wait is not None:
        failure = endings.diagnosed(endings.too_late(attempt, attempt.wait))
        attempts.end(attempt, endings.of_failure(failure, is_pod_gone=attempt.pod.uid is not None))


def _is_unstarted(attempt: Attempt) -> bool:
    return attempt.seen.verdict == "none" and attempt.started_at is None
