"""Permits: may a create be sent for this attempt? Asked of the result backend, immediately before.

Where the backend knows claims, the launch is claimed (`claim_client`, `launch_claim`). Elsewhere a pod's name is the
only claim, and whether the outcome is stored is asked of what says that it comes again, and of what waited. While the
backend is away an attempt waits: it must not run a second time. On the loop's thread.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

from dispatcher import retry
from dispatcher.attempts.attempt import Attempt
from dispatcher.launching.claim_client import Claims
from dispatcher.protocol import launch_claim
from dispatcher.protocol.launch_claim import Step

logger = logging.getLogger(__name__)

T = TypeVar("T")

DOUBT_AFTER_S = 3.0
"""What waited so long may have been delivered to another dispatcher, too."""


AHEAD = 32
"""So many launches are claimed beside the creates under way, so that creates do not wait for claims."""


class Permits:
    """Asks, for as long as it takes. `is_over` says whether an outcome is stored; it may block, and raise.

    `on_waiting` is told when an attempt waits for the result backend.
    """

    def __init__(
        self, claims: Claims | None, *, is_over: Callable[[Attempt], bool], on_waiting: Callable[[Attempt], None]
    ) -> None:
        self._claims = claims
        self._is_over = is_over
        self._on_waiting = on_waiting
        self._is_away = False

    @property
    def ahead(self) -> int:
        """How many attempts should be asked for beside those whose creates are under way."""
        return AHEAD if self._claims is not None else 0

    def is_fresh(self, attempt: Attempt) -> bool:
        """Whether `create`, if that was the answer, still holds."""
        claims = self._claims_for(attempt)
        return claims is None or not claims.holds(attempt) or claims.is_fresh(attempt)

    async def ask(self, attempt: Attempt) -> Step:
        """What to do with an attempt whose turn it is: `create`, `look`, `tell` or `drop`."""
        claims = self._claims_for(attempt)
        if claims is None:
            return await self._unclaimed(attempt)
        while True:
            step = await self._insist(attempt, lambda: self._claimed(claims, attempt))
            if step.action != "create" or claims.is_fresh(attempt):
                return step
            attempt.reason, attempt.detail = "ResultBackendUnavailable", "it answers too slowly for a claim"
            self._on_waiting(attempt)

    async def without_pod(self, attempt: Attempt) -> Step:
        """What to do after `look`, where there is no pod: `wait`, `create`, `tell` or `drop`."""
        claims = self._claims_for(attempt)
        if claims is None:
            return Step("create", "Unclaimed")
        return await self._insist(attempt, lambda: self._settled(claims, attempt))

    async def lose(self, attempt: Attempt) -> Step:
        """What to do where a pod of ours may have come and gone unseen: `tell` or `drop`; `create` without claims."""
        claims = self._claims_for(attempt)
        if claims is None:
            return Step("create", "Unclaimed")
        if await self._insist(attempt, lambda: claims.lose(attempt, attempt.delivery)):
            return Step("tell", "PodLost", claims.owner)
        return Step("drop", "Ended")  # our claim was there a moment ago: only an outcome can have come in between

    def sent(self, attempt: Attempt) -> None:
        """A create is sent now."""
        if claims := self._claims_for(attempt):
            claims.sent(attempt)

    async def refused(self, attempt: Attempt) -> None:
        """The server said that the last create did nothing."""
        if claims := self._claims_for(attempt):
            await claims.refused(attempt)

    async def give_up(self, attempt: Attempt) -> None:
        """It gets no pod after all: nobody need wonder about it, unless a create was sent before."""
        if claims := self._claims_for(attempt):
            await claims.give_up(attempt)

    def _claims_for(self, attempt: Attempt) -> Claims | None:
        """What stores no outcome cannot be claimed: nobody could tell whether it ended."""
        return None if attempt.callbacks.request.ignore_result else self._claims

    async def _claimed(self, claims: Claims, attempt: Attempt) -> Step:
        was_ours, retries = claims.holds(attempt), attempt.message.retries
        answer = await claims.take(attempt)
        step = launch_claim.decide(answer, retries=retries, was_ours=was_ours)
        if step.action == "replace" and answer.held is not None:
            await claims.replace(attempt, answer.held)
            return await self._claimed(claims, attempt)
        return step

    async def _settled(self, claims: Claims, attempt: Attempt) -> Step:
        was_ours, retries = claims.holds(attempt), attempt.message.retries
        answer = await claims.take(attempt)
        step = launch_claim.decide(answer, retries=retries, was_ours=was_ours, is_pod_missing=True)
        if step.action == "lose" and answer.held is not None:
            if await claims.lose(attempt, answer.held):
                return Step("tell", step.reason, step.owner)
            return Step("wait", "ClaimedBefore", step.owner)  # somebody else was faster, or it has just ended
        return step

    async def _unclaimed(self, attempt: Attempt) -> Step:
        while True:
            asked_at = time.monotonic()
            waited_s = (datetime.now(UTC) - attempt.received_at).total_seconds()
            is_doubtful = attempt.message.is_repeat or waited_s > DOUBT_AFTER_S
            if is_doubtful and await self._insist(attempt, lambda: asyncio.to_thread(self._is_over, attempt)):
                return Step("drop", "Ended")
            if time.monotonic() - asked_at < launch_claim.FRESH_S:
                return Step("create", "Unclaimed")

    async def _insist(self, attempt: Attempt, call: Callable[[], Awaitable[T]]) -> T:
        failures = 0
        while True:
            try:
                answer = await call()
            except Exception as error:  # noqa: BLE001 - the result backend is another's code, away or not
                failures += 1
                self._note(error)
                attempt.reason, attempt.detail = "ResultBackendUnavailable", str(error)
                self._on_waiting(attempt)
                await asyncio.sleep(retry.backoff_s(failures, jitter=random.random()))
            else:
                self._note(None)
                return answer

    def _note(self, trouble: Exception | None) -> None:
        """One line when launches begin to wait for the result backend, and one when it answers again."""
        if trouble is not None and not self._is_away:
            logger.warning("launching waits reason=ResultBackendUnavailable: %r", trouble)
        elif trouble is None and self._is_away:
            logger.info("launching goes on: the result backend answers again")
        self._is_away = trouble is not None
