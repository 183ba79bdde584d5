"""Looks for a pod that a list lacked: it is gone, was replaced, or belongs to another dispatcher by now.

A list from a cache may be old, so what it lacks may be there. On the loop's thread.
"""

import logging
import time

from dispatcher import errors
from dispatcher.attempts import endings, sightings, states
from dispatcher.attempts.attempt import Attempt, Closed
from dispatcher.attempts.registry import Attempts
from dispatcher.background import Background
from dispatcher.kubeapi import client
from dispatcher.manifests import labels, names

logger = logging.getLogger(__name__)


class PodFinder:
    """Asks the API server."""

    def __init__(self, kube: client.KubeClient, *, owner: str, attempts: Attempts, background: Background) -> None:
        self._client = kube
        self._owner = names.label_value(owner)
        self._attempts = attempts
        self._background = background

    def find(self, attempt: Attempt) -> None:
        """Looks for its pod, and ends the attempt if it is gone."""
        # Before the call: the mark is gone, so that the next look does not ask
        # a second time while this one is under way.
        self._attempts.found(attempt)
        self._background.spawn(self._find(attempt))

    async def _find(self, attempt: Attempt) -> None:
        try:
            pod = await self._client.read_pod(attempt.namespace, attempt.pod.name)
        except errors.ApiError as error:
            if error.status != 404:
                logger.debug("a pod was not found again pod=%s: %s", attempt.pod.name, error)
                return
            is_there = False
        except errors.ApiUnavailable:
            return  # the next list looks again
        else:
            # W12: the name alone may be another pod's by now.
            is_there = sightings.uid_of(pod) == attempt.pod.uid
        # The watch or a revocation may have been faster than this answer.
        if attempt.state not in states.LIVE:
            return
        if not is_there:
            self._attempts.end(attempt, endings.deleted(attempt))
        elif labels.owner_of(pod) != self._owner:
            self._attempts.close(attempt, Closed.DROPPED)
        else:  # the list was older than the pod
            found = sightings.sighting(attempt, pod, "MODIFIED", now_mono_s=time.monotonic())
            self._attempts.saw(attempt, found, uid=sightings.uid_of(pod))
