"""Takeover of orphans: pods of our deployment whose dispatcher is gone are taken over, each by exactly one dispatcher.

Whether a dispatcher lives is asked of Celery (a ping through the broker); one that is silent twice in a row is taken
for gone. Ownership is a label, changed only if the pod is still the one that was seen (resourceVersion), so of several
takers one wins; a dispatcher that was only slow sees its pod leave and drops it without a result. The pod then appears
in the taker's watch and is adopted like any other. Runs on the loop's thread.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from dispatcher import errors
from dispatcher.admission.shared_limits import SharedLimits
from dispatcher.attempts.celery_side import Questions
from dispatcher.attempts.seen_pods import SeenPods
from dispatcher.kubeapi import client
from dispatcher.manifests import labels, names

logger = logging.getLogger(__name__)

FIRST_AFTER_S = 2.0
EVERY_S = 15.0


class Takeover:
    """Looks for them, for ever."""

    def __init__(
        self,
        kube: client.KubeClient,
        *,
        deployment: str,
        owner: str,
        seen_pods: SeenPods,
        shared: SharedLimits,
        questions: Questions,
    ) -> None:
        self._client = kube
        self._owner = names.label_value(owner)
        self._selector = f"{labels.selector(deployment=deployment)},{labels.OWNER_LABEL}!={self._owner}"
        self._seen_pods = seen_pods
        self._shared = shared
        self._questions = questions
        self._silent: set[str] = set()
        """Owners that did not answer the last time."""

    async def run(self) -> None:
        """Looks, waits, and looks again until it is cancelled."""
        await asyncio.sleep(FIRST_AFTER_S)
        while True:
            try:
                # Soon again where somebody was silent for the first time: the second silence decides.
                again_s = FIRST_AFTER_S if await self._look() else EVERY_S
            except (errors.ApiError, errors.ApiUnavailable) as error:
                logger.debug("orphans were not looked for: %s", error)
                again_s = EVERY_S
            except Exception:
                logger.exception("looking for orphans failed")
                again_s = EVERY_S
            await asyncio.sleep(again_s)

    async def _look(self) -> bool:
        """Takes what is orphaned. Says whether it wants to look again soon."""
        asked_mono_s = time.monotonic()
        listed = [(name, await self._foreign(name)) for name in list(self._seen_pods.watched)]
        pods = [pod for _, found in listed for pod in found or ()]
        # Where pods may not be listed none is created either (`Admission`), so such a namespace does not count.
        if all(found is not None or name in self._seen_pods.forbidden for name, found in listed):
            self._shared.saw(pods, asked_mono_s)  # a list that failed says nothing: what was seen last holds
        owners = {_owner(pod) for pod in pods}
        # Nobody to ask about: no ping is sent to all workers for nothing.
        if not owners:
            self._silent = set()
            return False
        alive = await asyncio.to_thread(self._questions.alive)
        if alive is None:
            return False
        # Owners are label values, in which long or odd node names are cut and hashed: both sides are compared as such.
        silent = owners - {names.label_value(name) for name in alive}
        # Twice in a row: one ping that is late under load must not cost a living dispatcher its pods.
        gone, self._silent = silent & self._silent, silent
        for pod in pods:
            if _owner(pod) in gone:
                await self._take(pod)
        return bool(silent - gone)

    async def _foreign(self, namespace: str) -> list[dict[str, Any]] | None:
        """The pods of others; None where the API server does not list this namespace. It leaves the others alone."""
        try:
            return (await self._client.list_pods(namespace, selector=self._selector)).pods
        except errors.ApiError as error:
            logger.debug("orphans were not looked for namespace=%s: %s", namespace, error)
            return None

    async def _take(self, pod: Mapping[str, Any]) -> None:
        metadata = pod["metadata"]
        patch = {
            "metadata": {
                # The precondition that makes the label a lock: 409 to all
                # takers but one, and to us where the owner wrote it.
                "resourceVersion": metadata["resourceVersion"],
                "labels": {labels.OWNER_LABEL: self._owner},
            }
        }
        try:
            await self._client.patch_pod(metadata["namespace"], metadata["name"], patch)
        except errors.ApiError as error:
            if error.status == 429:
                raise  # the server wants fewer calls: the rest is for the next round
            if error.status not in (404, 409):  # else it is gone, has changed, or another dispatcher was faster
                logger.warning("orphan not taken over, tried again later pod=%s: %s", metadata["name"], error)
            return
        logger.info("orphan taken over pod=%s from=%s", metadata["name"], _owner(pod))


def _owner(pod: Mapping[str, Any]) -> str:
    return str((pod["metadata"].get("labels") or {}).get(labels.OWNER_LABEL, ""))
