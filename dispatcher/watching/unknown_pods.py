"""Unknown pods: pods of ours that no attempt here knows, brought to adoption with their message. On the loop's thread.

A message that travels in a Secret is read first. Where there is none yet, its delivery was not acknowledged and comes
again.
"""

import logging
from collections.abc import Mapping
from typing import Any

from dispatcher import errors, retry
from dispatcher.attempts.celery_side import CelerySide, Found
from dispatcher.background import Background
from dispatcher.kubeapi import client
from dispatcher.manifests import message_secret

logger = logging.getLogger(__name__)

BACKOFF = retry.Backoff(tries=6)
"""For about half a minute: whoever created the pod creates its Secret right after it, or is gone."""
_NOT_THERE = (errors.ApiError, errors.ApiUnavailable, ValueError)


class UnknownPods:
    """Passes found pods on, once each while one is being read."""

    def __init__(self, kube: client.KubeClient, *, celery: CelerySide, background: Background) -> None:
        self._client = kube
        self._celery = celery
        self._background = background
        self._unread: set[str] = set()
        """uids of pods whose message is being read from its Secret."""

    def found(self, pod: Mapping[str, Any], *, is_ended: bool) -> None:
        """A pod of ours that nobody here knows."""
        name = message_secret.name_in(pod)
        uid = pod["metadata"]["uid"]
        if name is None:
            self._celery.post(Found(pod=pod, is_ended=is_ended))
        elif uid not in self._unread:
            # Each event of the pod brings it here again while its Secret is being read.
            self._unread.add(uid)
            self._background.spawn(self._read(pod, name, is_ended=is_ended))

    async def _read(self, pod: Mapping[str, Any], name: str, *, is_ended: bool) -> None:
        try:
            async for one in retry.Tries(_NOT_THERE, backoff=BACKOFF):
                with one:
                    secret = await self._client.read_secret(pod["metadata"]["namespace"], name)
                    text = message_secret.text_in(secret)
        except _NOT_THERE as error:
            logger.warning("a pod cannot be adopted, its message is missing pod=%s: %s", name, error)
        else:
            self._celery.post(Found(pod=message_secret.with_message(pod, text), is_ended=is_ended))
        finally:
            # In `finally`: the next list brings it again, and a Secret that was late is found then.
            self._unread.discard(pod["metadata"]["uid"])
