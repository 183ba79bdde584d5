"""The launch guard: may a create be sent for this attempt? Asked of the result backend, immediately before.

Where the backend knows claims, the launch is claimed (`claim_client`, `launch_claim`). Elsewhere a pod's name is the
only claim, and whether the outcome is stored is asked of what says that it comes again, and of what waited. While the
backend is away an attempt waits: it must not run a second time. On the loop's thread.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from dispatcher import retry
from dispatcher.attempts.attempt import Attempt
from dispatcher.attempts.celery_side import Questions
from dispatcher.attempts.limits import BlockedReason
from dispatcher.attempts.registry import Attempts
from dispatcher.launching.claim_client import Claims
from dispatcher.protocol import launch_claim
from dispatcher.protocol.launch_claim import Step

logger = logging.getLogger(__name__)

AWAY = "ResultBackendUnavailable"
DOUBT_AFTER_S = 3.0
"""What waited so long may have been delivered to another dispatcher, too."""


class LaunchGuard:
    """Asks, for as long as it takes; what waits for the result backend says so."""

    def __init__(self, claims: Claims | None, *, questions: Questions, attempts: Attempts) -> None:
        self._claims = claims
        self._questions = questions
        self._attempts = attempts
        self._is_away = False

    def is_fresh(self, attempt: Attempt) -> bool:
        """Whether `create`, if that was the answer, still holds."""
        # Where no claim of ours stands (no claims at all, or the answer was another's) none can be too old.
        claims = self._claims_for(attempt)
        return claims is None or not claims.holds(attempt) or claims.is_fresh(attempt)

    def is_revoked(self, attempt: Attempt) -> bool:
        """Whether it was revoked, or has expired, while it waited."""
        expires_at = attempt.expires_at
        return self._questions.is_revoked(attempt.id) or (expires_at is not None and expires_at < datetime.now(UTC))

    async def ask(self, attempt: Attempt) -> Step:
        """What to do with an attempt whose turn it is: `create`, `look`, `report` or `drop`."""
        claims = self._claims_for(attempt)
        if claims is None:
            return await self._unclaimed(attempt)
        while True:
            async for one in retry.Tries(Exception):  # the result backend is another's code, away or not
                with one, self._noting(attempt):
                    step = await self._claimed(claims, attempt)
            # By then the lease may have run out, and another dispatcher may be creating: asked again instead.
            if step.action != "create" or claims.is_fresh(attempt):
                return step
            self._attempts.block(attempt, BlockedReason(AWAY, "it answers too slowly for a claim"))

    async def without_pod(self, attempt: Attempt) -> Step:
        """What to do after `look`, where there is no pod: `wait`, `create`, `report` or `drop`."""
        claims = self._claims_for(attempt)
        if claims is None:
            return Step("create", "Unclaimed") if attempt.message.pod_end is None else Step("report", "PodLost")
        async for one in retry.Tries(Exception):
            with one, self._noting(attempt):
                step, held = await self._looked_for(claims, attempt)
        if step.action == "create" and attempt.message.pod_end is not None:
            return await self.lose(attempt)  # nobody claims it any more, and it had its pod
        if step.action != "lose" or held is None:
            return step
        # By itself: a claim that is asked for again would take the place of a loss that was noted before its answer
        # was lost, and what nobody knows the end of would run again.
        if await self._lose(claims, attempt, held):
            return Step("report", step.reason, step.owner)
        return Step("wait", "ClaimedBefore", step.owner)  # somebody else was faster, or it has just ended

    async def lose(self, attempt: Attempt) -> Step:
        """What to do where a pod of ours may have come and gone unseen: `report` or `drop`; `create` without claims."""
        claims = self._claims_for(attempt)
        if claims is None:
            return Step("create", "Unclaimed")
        if await self._lose(claims, attempt, attempt.delivery):
            return Step("report", "PodLost", claims.owner)
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
        return self._claims if attempt.stores_result else None

    async def _claimed(self, claims: Claims, attempt: Attempt) -> Step:
        was_ours, place = claims.holds(attempt), attempt.key.place
        answer = await claims.take(attempt)
        # Whether it was ours is looked at before the call, which makes it ours where it is granted.
        step = launch_claim.decide(answer, place=place, was_ours=was_ours)
        if step.action == "replace" and answer.held is not None:
            await claims.replace(attempt, answer.held)
            return await self._claimed(claims, attempt)
        return step

    async def _looked_for(self, claims: Claims, attempt: Attempt) -> tuple[Step, str | None]:
        """What follows from there being no pod, and the claim that stands in the place of ours."""
        was_ours, place = claims.holds(attempt), attempt.key.place
        answer = await claims.take(attempt)
        return launch_claim.decide(answer, place=place, was_ours=was_ours, is_pod_missing=True), answer.held

    async def _lose(self, claims: Claims, attempt: Attempt, held: str) -> bool:
        async for one in retry.Tries(Exception):
            with one, self._noting(attempt):
                is_noted = await claims.lose(attempt, held)
        return is_noted

    async def _unclaimed(self, attempt: Attempt) -> Step:
        while True:
            asked_mono_s = time.monotonic()
            waited_s = (datetime.now(UTC) - attempt.received_at).total_seconds()
            # A question for each message would be a round trip for each pod;
            # nobody else has one that was just delivered once.
            is_doubtful = attempt.message.is_repeat or waited_s > DOUBT_AFTER_S
            if is_doubtful and attempt.stores_result and await self._has_outcome(attempt):
                return Step("drop", "Ended")
            # An answer that took longer may be out of date, like a claim.
            if time.monotonic() - asked_mono_s < launch_claim.FRESH_S:
                return Step("create", "Unclaimed")

    async def _has_outcome(self, attempt: Attempt) -> bool:
        async for one in retry.Tries(Exception):
            with one, self._noting(attempt):
                # `known_outcome`: a message that was put back behind its stored
                # outcome runs again, as with a prefork pool.
                has_outcome = await asyncio.to_thread(
                    self._questions.has_outcome, attempt.id, besides=attempt.message.known_outcome
                )
        return has_outcome

    @contextmanager
    def _noting(self, attempt: Attempt) -> Iterator[None]:
        """One question to the result backend: an attempt that waits for its answer says so."""
        try:
            yield
        except Exception as error:
            self._note(error)
            self._attempts.block(attempt, BlockedReason(AWAY, str(error)))
            raise
        self._note(None)

    def _note(self, trouble: Exception | None) -> None:
        """One line when launches begin to wait for the result backend, and one when it answers again."""
        if trouble is not None and not self._is_away:
            logger.warning("launching waits reason=ResultBackendUnavailable: %r", trouble)
        elif trouble is None and self._is_away:
            logger.info("launching goes on: the result backend answers again")
        self._is_away = trouble is not None
