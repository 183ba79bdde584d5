"""Shared limits: one ConfigMap in which the dispatchers of a deployment share out the slots of their limits.

Every dispatcher writes its own key, and only if the object is still the one that it read (resourceVersion), so what
`fair_share` decides holds for all of them at every moment: dispatchers that live never exceed a limit together. While
one is alone it holds everything. One that has not been able to write for a while (`Pace`) creates nothing; one whose
key stands still for longer is gone, and only its pods count, until they end. Runs on the loop's thread.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dispatcher import errors, retry
from dispatcher.admission import fair_share
from dispatcher.admission.fair_share import Entry, Need
from dispatcher.admission.peers import Peers, Plan
from dispatcher.attempts.limits import BlockedReason
from dispatcher.attempts.signals import Signal
from dispatcher.kubeapi import client
from dispatcher.manifests import labels, names

logger = logging.getLogger(__name__)

LEAST_S = 0.05
"""Between two turns at least."""
AGAIN_S = 15.0
"""After an answer that says that the object may not be had at all."""
BACKOFF = retry.Backoff(first_s=0.02, last_s=0.25, tries=8)
LEAVE_S = 1.0


Demand = Callable[[], Mapping[str, tuple[int, Need]]]
"""Gives the limit of each limited key, and what this dispatcher has and wants of it now."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The times by which dispatchers live together; the same for all of a deployment, each by its monotonic clock."""

    every_s: float = 1.0
    """From turn to turn."""
    short_s: float = 0.3
    """The same while slots that are due have not come yet."""
    valid_s: float = 12.0
    """So long after the last writing a dispatcher may create."""
    gone_s: float = 15.0
    """Whose entry stands still for so long is gone. More than `valid_s`: it has stopped creating before."""


class _ChangedByOthers(errors.ApiUnavailable):
    """The object is not the one any more that was read."""


class SharedLimits:
    """This dispatcher's part of it. `wake` says that the next turn should not wait."""

    def __init__(
        self, kube: client.KubeClient, *, namespace: str, deployment: str, owner: str, pace: Pace = Pace()
    ) -> None:
        self._client = kube
        self._namespace = namespace
        # As a pod's: readable, valid whatever the deployment is called, and distinct by a hash of the whole name.
        self._name = names.pod_name("podyard-limits", deployment, key=deployment)
        self._labels = {
            labels.MANAGED_BY_LABEL: labels.MANAGED_BY,
            labels.DEPLOYMENT_LABEL: names.label_value(deployment),
        }
        self._me = names.label_value(owner)
        self._pace = pace
        # Not from 0: the entry of an earlier process of this name must be seen to change.
        self._beat = time.time_ns()
        self._peers = Peers(self._me, gone_s=pace.gone_s)
        self._plan: Plan | None = None
        """The last one that was written, lowered by one that is being written."""
        self._valid_until_mono_s = 0.0
        self._is_denied = False
        self._is_warned = False
        """Since it has worked last."""
        self.wake = Signal()
        self.trouble: str | None = "nothing was written yet"

    def allowed(self, key: str, limit: int) -> int | BlockedReason:
        """How many pods of a key this dispatcher may have now."""
        # Without the ConfigMap limits hold here alone: less what the last look into the cluster saw of others.
        if self._is_denied:
            return max(0, limit - self._peers.pods(key))
        if self._plan is None or time.monotonic() > self._valid_until_mono_s:
            return BlockedReason(
                "LimitsUnknown", f"what other dispatchers hold of the limits is not known: {self.trouble}"
            )
        if self._plan.is_alone:
            return limit
        granted = self._plan.grants.get(key)
        # A queue whose first task just came: its key is in no plan yet.
        if granted is None:
            self.wake.set()
            return BlockedReason("LimitsUnknown", "its share of the limits is being asked for")
        return granted.allowed

    def freed(self) -> None:
        """A slot became free: where others wait for it they need not wait for the next turn."""
        # Only where more is held than should be: then a slot that is free here is due to somebody else.
        if self._plan is not None and any(one.allowed < one.share for one in self._plan.grants.values()):
            self.wake.set()

    def saw(self, pods: Iterable[Mapping[str, Any]], asked_mono_s: float) -> None:
        """The pods of all other owners, as the cluster listed them when asked at that time."""
        self._peers.saw(pods, asked_mono_s=asked_mono_s)

    async def turn(self, demand: Demand) -> float:
        """Reads, decides, writes; what keeps it from that is in `trouble`. Gives the seconds until the next turn."""
        try:
            return await self._turn(demand)
        except errors.ApiUnavailable as error:
            self._failed(error)
        except errors.ApiError as error:
            # What a next try does not heal: no permission, no namespace, a
            # server without ConfigMaps, an object too large.
            if error.status in (403, 404, 405, 413, 422):
                self._deny(error)
            else:
                self._failed(error)
            return AGAIN_S if self._is_denied else self._pace.every_s
        except Exception as error:
            logger.exception("the slots of the limits could not be shared out")
            self._failed(error)
        return self._pace.every_s

    async def leave(self, used: Mapping[str, int]) -> None:
        """Releases all that has no pod; the pods run on. Bounded, and tried once: it only saves the others time."""
        if self._plan is None:
            return
        entry = Entry(beat=self._next_beat(), used={key: count for key, count in used.items() if count})
        # Before the write: nothing is created by a share that is being given back.
        self._plan = None
        patch = {"data": {self._me: fair_share.encode(entry)}}
        with contextlib.suppress(errors.ApiError, errors.ApiUnavailable, TimeoutError):
            await asyncio.wait_for(self._client.patch_config_map(self._namespace, self._name, patch), LEAVE_S)

    async def _turn(self, demand: Demand) -> float:
        # Read anew for each try: the plan must follow from the very object that it is written over.
        async for one in retry.Tries(_ChangedByOthers, backoff=BACKOFF):
            with one:
                found = await self._read()
                now_mono_s = time.monotonic()
                plan = self._peers.plan(_entries(found), dict(demand()), beat=self._next_beat(), now_mono_s=now_mono_s)
                # Less is done before less is written (ADR 8): others may use
                # what we gave up as soon as the server has it.
                self._plan = self._plan.lowered(plan) if self._plan is not None else None
                # Before the request: others count our silence from when they
                # see the beat, which may be before the answer is here.
                sent_mono_s = time.monotonic()
                await self._write(found, plan)
        self._worked(plan, sent_mono_s)
        return self._pace.short_s if plan.is_short else self._pace.every_s

    async def _read(self) -> Mapping[str, Any] | None:
        try:
            return await self._client.read_config_map(self._namespace, self._name)
        except errors.ApiError as error:
            # A 404 that names something else is about the namespace, or from a
            # proxy: creating the object would not help.
            if error.status == 404 and self._name in error.message:
                return None
            raise

    async def _write(self, found: Mapping[str, Any] | None, plan: Plan) -> None:
        """Raises _ChangedByOthers where somebody else was faster."""
        # None removes a key: a merge patch (RFC 7386).
        data: dict[str, str | None] = {self._me: fair_share.encode(plan.entry), **dict.fromkeys(plan.gone)}
        metadata: dict[str, Any] = {"name": self._name, "namespace": self._namespace, "labels": self._labels}
        try:
            if found is None:
                body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
                await self._client.create_config_map(self._namespace, body)
            else:
                # In a patch it is a precondition: the API server answers 409 where the object has changed since.
                version = {"resourceVersion": found["metadata"]["resourceVersion"]}
                await self._client.patch_config_map(self._namespace, self._name, {"metadata": version, "data": data})
        except errors.ApiError as error:
            # 409 of a create: another dispatcher made it first. 404 of a patch: somebody deleted it meanwhile.
            if error.status == 409 or (found is not None and error.status == 404):
                raise _ChangedByOthers(f"the ConfigMap {self._name} was changed by others again and again") from error
            raise

    def _next_beat(self) -> int:
        self._beat += 1
        return self._beat

    def _worked(self, plan: Plan, sent_mono_s: float) -> None:
        self._plan, self._valid_until_mono_s = plan, sent_mono_s + self._pace.valid_s
        self._is_denied, self._is_warned, self.trouble = False, False, None

    def _failed(self, error: BaseException) -> None:
        if not self._is_warned:
            logger.warning("the slots of the limits were not shared out: %s", error)
        self._is_warned, self.trouble = True, str(error)

    def _deny(self, error: errors.ApiError) -> None:
        if not self._is_denied:
            text = "limits hold for each dispatcher alone, the ConfigMap %s cannot be used: %s"
            logger.error(text, self._name, error)
        self._is_denied, self.trouble = True, str(error)


def _entries(found: Mapping[str, Any] | None) -> dict[str, Entry]:
    """The entries that can be read."""
    data = (found or {}).get("data") or {}
    read = {name: fair_share.decode(text) for name, text in data.items()}
    return {name: entry for name, entry in read.items() if entry is not None}
