"""Ownership: whether an attempt is still this dispatcher's to report, asked of the API server and the result backend.

Asked only after a standstill (`stall_detector`): another dispatcher may have taken the pod over meanwhile, which its
owner label says, and reported its outcome, after which the pod is deleted. On the loop's thread.
"""

import asyncio
import logging

from dispatcher import retry
from dispatcher.attempts.attempt import Attempt
from dispatcher.attempts.celery_side import Questions
from dispatcher.kubeapi import client
from dispatcher.manifests import labels, names

logger = logging.getLogger(__name__)


class Ownership:
    """Asks for as long as it takes."""

    def __init__(self, kube: client.KubeClient, *, owner: str, questions: Questions) -> None:
        self._client = kube
        self._owner = names.label_value(owner)
        self._questions = questions

    async def is_ours(self, attempt: Attempt) -> bool:
        """Whether its pod is ours, or is gone or never was and nobody has stored an outcome."""
        async for one in retry.Tries(Exception):  # the result backend is another's code, away or not
            with one:
                owner = await self._owner_of(attempt)
                # Gone and nothing stored: whoever had it has reported nothing,
                # so that we do (a second time in the worst case).
                is_ours = not await self._has_outcome(attempt) if owner is None else owner == self._owner
            if one.error is not None:
                logger.debug("its owner cannot be asked for attempt_id=%s: %r", attempt.id, one.error)
        return is_ours

    async def _has_outcome(self, attempt: Attempt) -> bool:
        return attempt.stores_result and await asyncio.to_thread(
            self._questions.has_outcome, attempt.id, besides=attempt.message.known_outcome
        )

    async def _owner_of(self, attempt: Attempt) -> str | None:
        """The dispatcher that its pod names; None where there is no such pod any more, or never was."""
        # No pod has been seen of it: another dispatcher may have reported it all the same.
        if attempt.pod.uid is None:
            return None
        pod = await self._client.find_pod(attempt.namespace, attempt.pod.name)
        # Another pod of the name belongs to a later launch of it, and says nothing about this one.
        return labels.owner_of(pod) if pod is not None and pod["metadata"]["uid"] == attempt.pod.uid else None
