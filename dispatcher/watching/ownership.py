"""Ownership: whether an attempt is still this dispatcher's to tell, asked of the API server and the result backend.

Asked only after a standstill (`stall_detector`): another dispatcher may have taken the pod over meanwhile, which its
owner label says, and told its outcome, after which the pod is deleted. On the loop's thread.
"""

import asyncio
import logging
import random
from collections.abc import Callable

from dispatcher import errors, retry
from dispatcher.attempts.attempt import Attempt
from dispatcher.kubeapi import client
from dispatcher.manifests import builder, names

logger = logging.getLogger(__name__)


class Ownership:
    """Asks for as long as it takes. `is_over` says whether an outcome is stored; it may block, and raise."""

    def __init__(self, cluster: client.KubeClient, *, owner: str, is_over: Callable[[Attempt], bool]) -> None:
        self._cluster = cluster
        self._owner = names.label_value(owner)
        self._is_over = is_over

    async def is_ours(self, attempt: Attempt) -> bool:
        """Whether its pod is ours, or is gone or never was and nobody has told an outcome."""
        failures = 0
        while True:
            try:
                owner = await self._owner_of(attempt)
                return not await asyncio.to_thread(self._is_over, attempt) if owner is None else owner == self._owner
            except Exception as error:  # noqa: BLE001 - API server or result backend are away: it waits for them
                failures += 1
                logger.debug("whose it is cannot be asked attempt_id=%s: %r", attempt.message.id, error)
                await asyncio.sleep(retry.backoff_s(failures, jitter=random.random()))

    async def _owner_of(self, attempt: Attempt) -> str | None:
        """The dispatcher that its pod names; None where there is no such pod any more, or never was."""
        if attempt.uid is None:
            return None
        try:
            pod = await self._cluster.read_pod(attempt.namespace, attempt.pod)
        except errors.ApiError as error:
            if error.status == 404:
                return None
            raise
        return builder.owner_of(pod) if pod["metadata"]["uid"] == attempt.uid else None
