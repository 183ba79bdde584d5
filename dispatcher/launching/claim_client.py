"""Claims: launches are claimed in the result backend, many in one round trip, before creates are sent for them.

What is claimed and not yet created is claimed again and again, so that others see that we are at it. Only where the
application's result backend is a `ClaimStore`. The backend is called from one thread of ours alone, so neither the
loop nor Celery's hub waits for it. What follows from an answer is `launch_claim`'s to say. On the loop's thread.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

from dispatcher import retry
from dispatcher.attempts import states
from dispatcher.attempts.attempt import Attempt
from dispatcher.protocol import launch_claim

logger = logging.getLogger(__name__)

AT_ONCE = 256
"""Claims in one round trip."""
GATHER_S = 0.015
"""While claims come one after the other they are asked for at most so often. One that comes alone does not wait."""
RELEASE_BACKOFF = retry.Backoff(first_s=1.0, last_s=15.0)


class ClaimStore(Protocol):
    """What a result backend has that knows claims. Calls block, and raise what the backend raises."""

    def take_launches(self, wanted: Sequence[tuple[str, str, str]]) -> list[tuple[str | None, float, bool]]:
        """(attempt id, token, claim) each -> (what stands there instead, its age in seconds, is there an outcome)."""

    def swap_launch(self, attempt_id: str, held: str, claim: str | None) -> bool:
        """Another claim, or none, where one stands that contains `held`, and no outcome. Says whether it did."""


def claim_store_of(backend: Any) -> ClaimStore | None:
    """The result backend as a store of claims, if it is one."""
    # By its methods: a backend that knows claims is `routing`'s, which this package may not import.
    return backend if hasattr(backend, "take_launches") and hasattr(backend, "swap_launch") else None


@dataclass(kw_only=True)
class _Ours:
    """The claim of one delivery."""

    asked_mono_s: float
    """When it was last asked for, on the monotonic clock."""
    unanswered: int = 0
    """Creates that were sent and of which it is not known that they did nothing."""


class _ClaimReplacedError(Exception):
    """Another claim stands where one was read a moment ago."""


class Claims:
    """The claims of one dispatcher's deliveries, from before their creates until their pods are known."""

    def __init__(self, claim_store: ClaimStore, *, owner: str) -> None:
        self._store = claim_store
        self.owner = owner
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="podyard-claims")
        self._ours: dict[Attempt, _Ours] = {}
        self._wanted: list[tuple[Attempt, asyncio.Future[launch_claim.Answer]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Renews what waits for its pod, until it is cancelled."""
        while True:
            # A quarter of the lease: one renewal may fail, and the next one be late, before others take us for dead.
            await asyncio.sleep(launch_claim.RENEW_S)
            # Once its pod is known the claim need not be renewed: who finds it looks for the pod first, and adopts it.
            self._ours = {one: ours for one, ours in self._ours.items() if one.state in states.UNLAUNCHED}
            try:
                await asyncio.gather(*map(self.take, self._ours))
            except Exception as error:  # the result backend is another's code, away or not
                logger.debug("claims were not renewed: %r", error)

    def holds(self, attempt: Attempt) -> bool:
        """Whether this delivery has had the claim, and has not released it."""
        return attempt in self._ours

    def is_fresh(self, attempt: Attempt) -> bool:
        """Whether a create may be sent now. Not after a while in which we may have been stopped."""
        ours = self._ours.get(attempt)
        return ours is not None and time.monotonic() - ours.asked_mono_s < launch_claim.FRESH_S

    def sent(self, attempt: Attempt) -> None:
        """A create is sent now: from here on its pod may exist."""
        self._ours[attempt].unanswered += 1

    async def refused(self, attempt: Attempt) -> None:
        """The server said that the last create did nothing. If no other may have, the claim is released."""
        ours = self._ours.get(attempt)
        if ours is None:
            return
        ours.unanswered -= 1
        await self.give_up(attempt)

    async def give_up(self, attempt: Attempt) -> None:
        """Takes our claim back, unless its pod may exist.

        If the result backend is away the claim stands, which costs the task an attempt should we die now.
        """
        ours = self._ours.get(attempt)
        if ours is None or ours.unanswered:
            return
        # Before the call: `is_fresh` says no from here on, so nothing is created by a claim that is being taken back.
        del self._ours[attempt]
        try:
            await self._swap(attempt, attempt.delivery, None)
        except Exception as error:
            logger.debug("a claim was not taken back attempt_id=%s: %r", attempt.id, error)

    async def take(self, attempt: Attempt) -> launch_claim.Answer:
        """Claims the launch, or renews the claim. Raises what the result backend raises."""
        answer: asyncio.Future[launch_claim.Answer] = asyncio.get_running_loop().create_future()
        # Gathered: hundreds of launches begin together, and a round trip for each would be most of what they cost.
        self._wanted.append((attempt, answer))
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        return await answer

    async def replace(self, attempt: Attempt, held: str) -> bool:
        """Puts our claim where `held` stands. Says whether that stood there still. Raises as `take`."""
        asked_mono_s = time.monotonic()
        is_done = await self._swap(attempt, held, self._claim(attempt))
        if is_done:
            self._ours[attempt] = _Ours(asked_mono_s=asked_mono_s)
        return is_done

    async def lose(self, attempt: Attempt, held: str) -> bool:
        """Notes that nobody knows what became of the launch; of several dispatchers one can. Raises as `take`.

        Repeatable: where the answer of a call before was lost, what stands there is our own note.
        """
        # A note and no deletion: whoever gets the message after us must not take it for one that was never launched.
        note = replace(self._claim(attempt), state=launch_claim.LOST)
        return await self._swap(attempt, held, note) or await self._swap(attempt, attempt.delivery, note)

    async def release(self, attempt: Attempt) -> None:
        """Takes back the claim of a launch, whoever made it: its message is about to be requeued.

        Returns once it is gone, however long the result backend is away.
        """
        async for one in retry.Tries(Exception, backoff=RELEASE_BACKOFF):
            with one:
                await self._release(attempt)
            if one.error is not None:
                logger.debug("a claim is not taken back yet attempt_id=%s: %r", attempt.id, one.error)

    async def close(self) -> None:
        """Takes back the claims for which nothing was sent, so that the next dispatcher need not wonder.

        One that is being asked for is waited for: it may be granted though nobody waits for the answer any more.
        """
        if self._asking is not None:
            await asyncio.wait({self._asking})
        await asyncio.gather(*map(self.give_up, list(self._ours)))

    async def _release(self, attempt: Attempt) -> None:
        answer = await self.take(attempt)
        # The question may just have granted it: left here it would be renewed by `run` after it was taken back.
        self._ours.pop(attempt, None)
        if answer.has_outcome:
            return  # its claim stands for good: nobody looks at it any more
        if answer.held is None:
            is_done = await self._swap(attempt, attempt.delivery, None)
        elif launch_claim.is_of_launch(answer.held, place=attempt.key.place):
            is_done = await self._swap(attempt, answer.held, None)
        else:
            return  # it is another's
        if not is_done:
            raise _ClaimReplacedError

    def _claim(self, attempt: Attempt) -> launch_claim.Claim:
        return launch_claim.Claim(
            token=attempt.delivery, retries=attempt.key.retries, replaced=attempt.key.replaced, owner=self.owner
        )

    async def _ask(self) -> None:
        """Asks for all that are wanted, as long as any are."""
        try:
            while self._wanted:
                # The first of a burst goes at once; who comes while it is under way travels with the next call.
                again_mono_s = time.monotonic() + GATHER_S
                wanted = [one for one in self._wanted if not one[1].done()]  # who was cancelled wants no claim
                batch, self._wanted = wanted[:AT_ONCE], wanted[AT_ONCE:]
                if batch:
                    await self._answer(batch)
                await asyncio.sleep(max(0.0, again_mono_s - time.monotonic()))
        finally:
            self._asking = None

    async def _answer(self, batch: Sequence[tuple[Attempt, "asyncio.Future[launch_claim.Answer]"]]) -> None:
        # From before the call: the server counts the age of the claim from when it wrote it, which is not earlier.
        asked_mono_s = time.monotonic()
        wanted = [(one.id, one.delivery, self._claim(one).encode()) for one, _ in batch]
        try:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._thread, self._store.take_launches, wanted)
            answers = [launch_claim.Answer(held=held, age_s=age_s, has_outcome=over) for held, age_s, over in found]
            pairs = list(zip(batch, answers, strict=True))
        except Exception as error:  # no answer, or an odd one: each that waits gets the error
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        # Also for who was cancelled meanwhile: the claim stands in the backend, and `close` has to know of it.
        for (attempt, future), answer in pairs:
            if answer.held is None and not answer.has_outcome:
                self._ours.setdefault(attempt, _Ours(asked_mono_s=asked_mono_s)).asked_mono_s = asked_mono_s
            if not future.done():
                future.set_result(answer)

    async def _swap(self, attempt: Attempt, held: str, claim: launch_claim.Claim | None) -> bool:
        text = claim.encode() if claim else None
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._store.swap_launch, attempt.id, held, text)
