"""MemoryClaimStore: what a result backend that knows claims does, in memory, for unit tests of launching.

The words of `claim_client.ClaimStore`; tests/integration/test_collector.py holds the real one, in Valkey, to the same
rules.

    store = memory_claim_store.MemoryClaimStore()
    store.fail(ConnectionError("away"), takes_effect=True)       # it is done, the answer is lost
    gate = store.hold()                                          # calls wait, in their thread, until gate.set()
"""

import json
import math
import threading
from collections import deque
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class MemoryClaimStore:
    """Claims and outcomes. Its methods are called from a thread, as those of a result backend."""

    def __init__(self) -> None:
        self.claims: dict[str, str] = {}
        """Attempt id -> what stands there."""
        self.ages_s: dict[str, float] = {}
        """Attempt id -> how old its claim is said to be; 0 where nothing is said."""
        self.outcomes: set[str] = set()
        self.trips: list[list[str]] = []
        """The attempt ids of each round trip of `take_launches`."""
        self.trouble: Exception | None = None
        """Raised as long as it stands."""
        self._faults: deque[tuple[Exception, bool]] = deque()
        self._gate: threading.Event | None = None

    def fail(self, *faults: Exception, takes_effect: bool = False) -> None:
        """The next calls raise `faults`, one after the other; with `takes_effect` what they ask is done before."""
        self._faults.extend((fault, takes_effect) for fault in faults)

    def hold(self) -> threading.Event:
        """Calls wait, before they do anything, until the event is set."""
        self._gate = self._gate or threading.Event()
        return self._gate

    def take_launches(self, wanted: Sequence[tuple[str, str, str]]) -> list[tuple[str | None, float, bool]]:
        self.trips.append([attempt_id for attempt_id, *_ in wanted])
        fault = self._begun()
        return _answer(fault, [self._taken(*one) for one in wanted])

    def swap_launch(self, attempt_id: str, held: str, claim: str | None) -> bool:
        fault = self._begun()
        return _answer(fault, self._swapped(attempt_id, held, claim))

    def owner(self, attempt_id: str) -> str | None:
        """Whose claim stands there."""
        text = self.claims.get(attempt_id)
        return None if text is None else json.loads(text)["launch"]["owner"]

    def state(self, attempt_id: str) -> str | None:
        """The word of the claim that stands there: `launching` or `lost`."""
        text = self.claims.get(attempt_id)
        return None if text is None else json.loads(text)["launch"]["state"]

    def _begun(self) -> Exception | None:
        if self._gate is not None:
            self._gate.wait(10)
        if self.trouble is not None:
            raise self.trouble
        if not self._faults:
            return None
        fault, takes_effect = self._faults.popleft()
        if not takes_effect:
            raise fault
        return fault

    def _taken(self, attempt_id: str, token: str, claim: str) -> tuple[str | None, float, bool]:
        held, has_outcome = self.claims.get(attempt_id), attempt_id in self.outcomes
        if not has_outcome and (held is None or token in held):
            self._write(attempt_id, claim)
            held = None
        age_s = math.inf if held is None else self.ages_s.get(attempt_id, 0.0)
        return (held, age_s, has_outcome)

    def _swapped(self, attempt_id: str, held: str, claim: str | None) -> bool:
        if held not in self.claims.get(attempt_id, "") or attempt_id in self.outcomes:
            return False
        if claim is None:
            del self.claims[attempt_id]
        else:
            self._write(attempt_id, claim)
        return True

    def _write(self, attempt_id: str, claim: str) -> None:
        self.claims[attempt_id] = json.dumps({"launch": json.loads(claim)})
        self.ages_s.pop(attempt_id, None)


def _answer(fault: Exception | None, answer: T) -> T:
    if fault is not None:
        raise fault
    return answer
