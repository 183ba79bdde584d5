"""Resync: asks for attempts of which the watch has said nothing for a while.

A watch may be silent though its connection stands, and a proxy may swallow a single event; the full list that would
find it comes every five minutes. So each attempt that was quiet for some time is asked for, all of a namespace with one
cheap list: a table of names and status words, from the API server's cache. A pod whose word is not the one that we
expect is read and treated like an event. Who answered as expected is trusted for twice as long the next time, up to a
minute: an end that the watch did not show is found within `bound_s`. Level-triggered, on the loop's thread.
"""

import asyncio
import logging
import random
import time
from dataclasses import dataclass

from dispatcher import errors
from dispatcher.attempts import sightings, states
from dispatcher.attempts.attempt import Attempt
from dispatcher.attempts.registry import Attempts
from dispatcher.kubeapi import client
from dispatcher.manifests import labels, names
from dispatcher.protocol.message import LaunchKey
from dispatcher.watching.watcher import Watcher

logger = logging.getLogger(__name__)

EVERY_S = 5.0
TRUST_FIRST_S = 15.0
TRUST_LAST_S = 60.0
AT_ONCE = 50
"""Pods that are read in one round; the others stay in doubt until the next one."""
RENEW_AGAIN_S = 30.0
RUNNING = "Running"


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often is asked, in seconds."""

    every_s: float = EVERY_S
    first_s: float = TRUST_FIRST_S
    last_s: float = TRUST_LAST_S

    def bound_s(self, *, ran_s: float) -> float:
        """How long the end of a pod that ran for `ran_s` may stay unknown, beside the time of the calls themselves."""
        return min(self.last_s, max(self.first_s, ran_s)) + 1.25 * self.every_s


@dataclass(kw_only=True)
class _Trust:
    """What is known of one attempt from earlier calls."""

    asked_mono_s: float = 0.0
    trust_s: float
    word: str | None = None
    has_failed: bool = False
    """The last read of its pod came to nothing: the others come first, so that one odd pod holds nobody up."""


class Resync:
    """Asks for quiet attempts, for ever."""

    def __init__(
        self,
        kube: client.KubeClient,
        *,
        owner: str,
        selector: str,
        attempts: Attempts,
        watcher: Watcher,
        pace: Pace = Pace(),
    ) -> None:
        self._client = kube
        self._owner = names.label_value(owner)
        self._selector = selector
        self._attempts = attempts
        self._watcher = watcher
        self._pace = pace
        self._trusted: dict[LaunchKey, _Trust] = {}
        self._renewed_mono_s: dict[str, float] = {}
        self.missed_ends = 0
        """Ends that the watch had not shown."""

    async def run(self) -> None:
        """Asks, waits, and asks again until it is cancelled."""
        while True:
            # Spread: several dispatchers that were started together would list at the same moments.
            await asyncio.sleep(self._pace.every_s * (0.75 + random.random() / 2))
            self._forget()
            for namespace in sorted({attempt.namespace for attempt in self._created() if self._is_in_doubt(attempt)}):
                try:
                    await self._call(namespace)
                except (errors.ApiError, errors.ApiUnavailable) as error:
                    logger.debug("no resync namespace=%s: %s", namespace, error)
                except Exception:
                    logger.exception("a resync failed namespace=%s", namespace)

    def _created(self) -> list[Attempt]:
        return [attempt for attempt in self._attempts if attempt.state in states.LIVE]

    def _forget(self) -> None:
        here = {attempt.key for attempt in self._attempts}
        self._trusted = {key: trust for key, trust in self._trusted.items() if key in here}

    def _trust_of(self, attempt: Attempt) -> _Trust:
        trust = self._trusted.setdefault(attempt.key, _Trust(trust_s=self._pace.first_s))
        # The watch has spoken since: it is trusted as little as at first, for the pod has just changed.
        if _seen_mono_s(attempt) > trust.asked_mono_s:
            trust.trust_s = self._pace.first_s
        return trust

    def _is_in_doubt(self, attempt: Attempt) -> bool:
        trust = self._trust_of(attempt)
        last_mono_s = max(_seen_mono_s(attempt), attempt.pod.created_mono_s, trust.asked_mono_s)
        return time.monotonic() - last_mono_s > trust.trust_s

    async def _call(self, namespace: str) -> None:
        asked_mono_s = time.monotonic()
        words = await self._client.list_words(namespace, selector=self._selector)
        reads = 0
        for attempt in sorted(self._created(), key=lambda one: self._trust_of(one).has_failed):
            if attempt.namespace != namespace or attempt.pod.created_mono_s >= asked_mono_s:
                continue
            trust, word = self._trust_of(attempt), words.get(attempt.pod.name)
            # The first time only `Running` is expected, of what has started; then the word that was read behind it.
            is_expected = word is not None and word == (trust.word or (RUNNING if attempt.started_at else None))
            if not is_expected:
                if not self._is_in_doubt(attempt):
                    continue  # the watch shows it, now or soon
                if reads >= AT_ONCE:
                    return
                reads += 1
                # Before the read, which may raise: then the round ends here, and the next one begins with the others.
                trust.has_failed = True
                await self._read(attempt)
                trust.has_failed = False
            elif self._is_in_doubt(attempt):
                trust.trust_s = min(self._pace.last_s, 2 * trust.trust_s)
            trust.word, trust.asked_mono_s = word, asked_mono_s

    async def _read(self, attempt: Attempt) -> None:
        """Reads one pod. A list from a cache may be old: what it lacks may be there."""
        try:
            pod = await self._client.read_pod(attempt.namespace, attempt.pod.name)
        except errors.ApiError as error:
            if error.status != 404:
                raise
            # Not ended here: the finder asks by itself, since nothing is ended
            # by an answer that a later event may overtake.
            self._attempts.missed(attempt)
            self._not_shown(attempt)
            return
        if labels.owner_of(pod) != self._owner or not sightings.is_of(attempt, pod):
            self._attempts.missed(attempt)
            self._not_shown(attempt)
            return
        self._attempts.observed(attempt, pod, now_mono_s=time.monotonic())
        if attempt.seen.verdict in ("succeeded", "failed", "gone"):
            self._not_shown(attempt)

    def _not_shown(self, attempt: Attempt) -> None:
        self.missed_ends += 1
        namespace, now_mono_s = attempt.namespace, time.monotonic()
        # A proxy that swallows events would have the namespace listed anew for each pod that ends.
        if now_mono_s - self._renewed_mono_s.get(namespace, -RENEW_AGAIN_S) < RENEW_AGAIN_S:
            return
        self._renewed_mono_s[namespace] = now_mono_s
        logger.warning(
            "the watch did not show the end of a pod, it is opened again namespace=%s pod=%s",
            *(namespace, attempt.pod.name),
        )
        self._watcher.renew(namespace)


def _seen_mono_s(attempt: Attempt) -> float:
    return 0.0 if attempt.sighting is None else attempt.sighting.at_mono_s
