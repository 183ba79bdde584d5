"""The watcher: lists the pods of a namespace, then follows them, for ever. Step ⑥ of the flow.

Level-triggered: a list is the truth, events only make us look sooner. A version that is too old (410, as an answer or
as an event) means list again; silence beyond a bound means the stream is dead and is opened anew; a full list every
few minutes closes whatever gap is left, most of which the resync has closed before. One unreadable event is counted
and skipped. Runs on the loop's thread, one task per namespace, so a namespace that fails leaves the others alone.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from dispatcher import errors, retry
from dispatcher.attempts.seen_pods import SeenPods
from dispatcher.kubeapi import client
from dispatcher.watching.pod_handler import PodHandler

logger = logging.getLogger(__name__)

SILENCE_S = 75.0
"""Without any line for so long a stream is taken for dead. Bookmarks come about once a minute."""
RELIST_S = 300.0
LEAST_S = 1.0
"""Between two lists, and between two streams, of one namespace: a proxy may end each stream as soon as it has begun."""
STEADY = retry.Backoff(steady_s=30.0)
"""A watch that has lasted for so long has worked: what ends it then is its first failure."""


class Watcher:
    """Follows the pods that match a selector, in every namespace that `watch` has named."""

    def __init__(self, kube: client.KubeClient, *, selector: str, handler: PodHandler, seen_pods: SeenPods) -> None:
        self._client = kube
        self._selector = selector
        self._handler = handler
        self._seen_pods = seen_pods
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.skipped = 0
        """Events that could not be read."""
        self.relists = 0

    @property
    def trouble(self) -> dict[str, str]:
        """Namespace -> what keeps it from being watched now."""
        return {name: trouble for name, trouble in self._seen_pods.watched.items() if trouble is not None}

    def watch(self, namespace: str) -> None:
        """Watches a namespace from now on. A second call does nothing."""
        if namespace not in self._tasks:
            self._seen_pods.watched.setdefault(namespace, None)
            self._tasks[namespace] = asyncio.get_running_loop().create_task(self._forever(namespace))

    async def run(self) -> None:
        """Ends all watches when it is cancelled."""
        try:
            # Does nothing but end with the TaskGroup: the watches are tasks of
            # their own, since namespaces are added at any time.
            await asyncio.get_running_loop().create_future()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def renew(self, namespace: str) -> None:
        """Lists a watched namespace now and opens its watch anew."""
        # A new task: the old one hangs in a stream of which nobody knows whether it still says anything.
        task = self._tasks.pop(namespace, None)
        if task is not None:
            task.cancel()
            self.watch(namespace)

    async def _forever(self, namespace: str) -> None:
        async for one in retry.Tries(Exception, backoff=STEADY, is_endless=True):
            with one:
                await self._list_then_follow(namespace)
            if one.error is not None:
                self._interrupted(namespace, one.error)

    def _interrupted(self, namespace: str, error: Exception) -> None:
        if not isinstance(error, errors.ApiError | errors.ApiUnavailable):
            logger.error("watch failed namespace=%s", namespace, exc_info=error)
            return
        # Said once for each interruption, however many tries it lasts.
        if self._seen_pods.watched.get(namespace) is None:
            logger.warning("watch interrupted namespace=%s: %s", namespace, error)
        self._seen_pods.watched[namespace] = str(error)
        if isinstance(error, errors.ApiError) and error.status == 403:
            self._seen_pods.forbidden[namespace] = str(error)

    async def _list_then_follow(self, namespace: str) -> None:
        """Returns when it is time to list again."""
        # Before the request: the list shows the world as of then or later, and what came after is not missing in it.
        asked_mono_s = time.monotonic()
        listed = await self._client.list_pods(namespace, selector=self._selector)
        self.relists += 1
        if self._seen_pods.watched.get(namespace) is not None:
            logger.info("watch restored namespace=%s", namespace)
        self._seen_pods.watched[namespace] = None
        self._seen_pods.forbidden.pop(namespace, None)
        for pod in listed.pods:
            self._look(pod, "ADDED")
        self._handler.listed(namespace, listed.pods, asked_mono_s=asked_mono_s)
        # The watch goes on from the version of the list: what happened between the two requests is not lost.
        version = listed.resource_version
        # A server ends each watch after a time of its own choice: that is no failure, and needs no list (W4).
        while version and time.monotonic() - asked_mono_s < RELIST_S:
            began_mono_s = time.monotonic()
            version = await self._follow(namespace, version)
            await asyncio.sleep(max(0.0, began_mono_s + LEAST_S - time.monotonic()))

    async def _follow(self, namespace: str, version: str) -> str:
        """Follows one stream to its end. Returns the version from which to go on; empty: list again."""
        try:
            async for event in self._client.watch_pods(
                namespace, selector=self._selector, resource_version=version, silence_s=SILENCE_S
            ):
                kind, thing = event.get("type"), event.get("object") or {}
                # A stream has its status line behind it: what goes wrong later comes as an event of this type (W2).
                if kind == "ERROR":
                    raise _error_of(thing)
                # Bookmarks count, too: in a quiet namespace they are all that keeps the version young enough (W10).
                version = (thing.get("metadata") or {}).get("resourceVersion") or version
                if kind != "BOOKMARK":
                    self._look(thing, str(kind))
        except errors.ApiError as error:
            if error.status == 410:
                return ""
            raise
        return version

    def _look(self, pod: Mapping[str, Any], kind: str) -> None:
        try:
            self._handler.saw(pod, kind)
        except Exception:
            # One pod that cannot be read must not end the watch of all others.
            self.skipped += 1
            name = (pod.get("metadata") or {}).get("name") if isinstance(pod, Mapping) else None
            logger.exception("a pod event was skipped pod=%s type=%s", name, kind)


def _error_of(status: Mapping[str, Any]) -> errors.ApiError:
    """What an event of the type ERROR says, as if it had been the answer."""
    return errors.ApiError(
        int(status.get("code") or 500), str(status.get("reason") or "Unknown"), str(status.get("message") or "")
    )
