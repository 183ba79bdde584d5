"""The attempts in flight, and the only way to change one: a method for each move, and for each fact about it.

A move that the table of `states` does not know is refused. Whatever changes puts the attempt into `changed`, from which
the reconciler takes it. The registry is a cache: the pods in the cluster are the truth, and adoption rebuilds it from
them. On the loop's thread.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from dispatcher.attempts import sightings, states
from dispatcher.attempts.attempt import Attempt, Closed, Ending, Launch, Pod, Sighting
from dispatcher.attempts.limits import BlockedReason
from dispatcher.attempts.signals import WorkQueue
from dispatcher.attempts.states import Move, State
from dispatcher.attempts.wait_rules import Wait
from dispatcher.protocol.message import LaunchKey
from dispatcher.status.pod_events import Event

logger = logging.getLogger(__name__)


class Attempts:
    """The attempts of one dispatcher. `is_strict`: an illegal move raises, as tests want it."""

    def __init__(self, *, is_strict: bool = False) -> None:
        self.changed = WorkQueue()
        self._is_strict = is_strict
        self._by_key: dict[LaunchKey, Attempt] = {}
        self._by_delivery: dict[str, Attempt] = {}
        self._by_pod: dict[tuple[str, str], Attempt] = {}
        # Counted at each move, not by looking at all: admission asks before every create, for every head of a queue.
        self._launching: Counter[str] = Counter()
        """Namespace -> attempts that are being launched."""

    def __iter__(self) -> Iterator[Attempt]:
        # A copy: who goes over attempts closes some of them, or awaits in between.
        return iter(list(self._by_key.values()))

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, key: LaunchKey) -> Attempt | None:
        """The attempt in flight with this key."""
        return self._by_key.get(key)

    def of_delivery(self, delivery: str) -> Attempt | None:
        """The attempt in flight of this delivery."""
        return self._by_delivery.get(delivery)

    def of_pod(self, namespace: str, pod: str) -> Attempt | None:
        """The attempt in flight whose pod has this name."""
        return self._by_pod.get((namespace, pod))

    def counts(self) -> Counter[State]:
        """How many attempts are in each state."""
        # Asked on Celery's thread, too (`inspect stats`): the copy is made in one step of the interpreter.
        return Counter(attempt.state for attempt in list(self._by_key.values()))

    def launching(self, namespace: str | None = None) -> int:
        """How many attempts are being launched, in one namespace or in all."""
        return self._launching.total() if namespace is None else self._launching[namespace]

    # Moves

    def add(self, attempt: Attempt) -> bool:
        """Takes one in, `QUEUED`, unless one of the same key is in flight. Says whether it did."""
        # What is in flight here may be delivered again (B5): two attempts would create and report the same pod.
        if attempt.key in self._by_key:
            return False
        self._by_key[attempt.key] = attempt
        self._by_delivery[attempt.delivery] = attempt
        return True

    def admit(self, attempt: Attempt) -> bool:
        """Its turn has come: its launch begins."""
        if not self._move(attempt, Move.ADMIT):
            return False
        attempt.blocked = None
        return True

    def park(self, attempt: Attempt, blocked: BlockedReason, launch: Launch) -> bool:
        """Its create came to nothing for now: it waits by itself."""
        if not self._move(attempt, Move.PARK):
            return False
        attempt.launch = launch
        self.block(attempt, blocked)
        return True

    def queue(self, attempt: Attempt, blocked: BlockedReason | None = None) -> bool:
        """Back into its wait queue, at its old place."""
        if not self._move(attempt, Move.QUEUE):
            return False
        if blocked is not None:
            self.block(attempt, blocked)
        return True

    def launched(self, attempt: Attempt, pod: Pod) -> bool:
        """Its pod exists, and all that belongs to it."""
        if not self._move(attempt, Move.LAUNCHED):
            return False
        self.name_pod(attempt, pod)
        # No create follows any more: thousands that run need not keep their manifests.
        attempt.launch = replace(attempt.launch, manifest=b"")
        attempt.blocked = None
        self.changed.add(attempt)
        return True

    def started(self, attempt: Attempt) -> bool:
        """Its container runs, or ran."""
        return self._move_and_look(attempt, Move.STARTED)

    def collect(self, attempt: Attempt) -> bool:
        """Its container has ended; the result sidecar is waited for."""
        return self._move_and_look(attempt, Move.COLLECT)

    def expire(self, attempt: Attempt) -> bool:
        """Its deadline has come, and ending it takes calls to the API server."""
        return self._move(attempt, Move.EXPIRE)

    def resume(self, attempt: Attempt) -> bool:
        """It was not ended at its deadline: it goes on where it was."""
        return self._move_and_look(attempt, Move.RESUME)

    def end(self, attempt: Attempt, ending: Ending) -> bool:
        """How it ended is known, or is being read."""
        if not self._move(attempt, Move.END):
            return False
        attempt.ending = ending
        attempt.launch = replace(attempt.launch, manifest=b"")
        self.changed.add(attempt)
        return True

    def close(self, attempt: Attempt, closed: Closed, ending: Ending | None = None) -> bool:
        """Nothing is left to do for it; `ending` is what its row says where nobody has said it yet. Idempotent."""
        if attempt.state is State.CLOSED:
            return False
        self._move(attempt, Move.CLOSE)
        # Out of every index: a command or an event of the watch that names it finds nothing from here on.
        self._by_delivery.pop(attempt.delivery, None)
        if self._by_key.get(attempt.key) is attempt:
            del self._by_key[attempt.key]
        if self.of_pod(attempt.namespace, attempt.pod.name) is attempt:
            del self._by_pod[(attempt.namespace, attempt.pod.name)]
        attempt.closed = closed
        if ending is not None:
            attempt.ending = ending
        self.changed.add(attempt)
        return True

    # Facts

    def name_pod(self, attempt: Attempt, pod: Pod) -> None:
        """What is known of its pod. By its name it is found before the create is answered: events may be faster."""
        attempt.pod = pod
        # A create may be answered after its attempt was closed; put into the index then, it would stay there for ever.
        if pod.name and attempt.state is not State.CLOSED:
            self._by_pod[(pod.namespace, pod.name)] = attempt

    def prepare(self, attempt: Attempt, launch: Launch) -> None:
        """What its next create needs, or what came of the last one."""
        attempt.launch = launch

    def block(self, attempt: Attempt, blocked: BlockedReason) -> None:
        """Why it has no pod yet."""
        # Every change writes a row, and the queues are looked at each second: the same reason again is no change.
        if attempt.blocked != blocked:
            attempt.blocked = blocked
            self.changed.add(attempt)

    def observed(self, attempt: Attempt, pod: Mapping[str, Any], kind: str = "MODIFIED", *, now_mono_s: float) -> None:
        """Its pod was seen: in an event of the watch of this kind, in a list, or as it was read."""
        self.saw(attempt, sightings.sighting(attempt, pod, kind, now_mono_s=now_mono_s), uid=sightings.uid_of(pod))

    def saw(self, attempt: Attempt, sighting: Sighting, *, uid: str) -> None:
        """What its pod says now."""
        # The watch may be faster than the answer to the create, which would have brought the uid.
        if attempt.pod.uid is None:
            attempt.pod = replace(attempt.pod, uid=uid)
        attempt.sighting = sighting
        attempt.is_missing = False
        self.changed.add(attempt)

    def missed(self, attempt: Attempt) -> None:
        """Its pod is not in the list of its namespace, or is another's."""
        attempt.is_missing = True
        self.changed.add(attempt)

    def found(self, attempt: Attempt) -> None:
        """Its pod was looked for, and nothing follows from that."""
        attempt.is_missing = False

    def hinted(self, attempt: Attempt, event: Event | None) -> None:
        """What the cluster's events say of its pod."""
        if attempt.event != event:
            attempt.event = event
            self.changed.add(attempt)

    def waits(self, attempt: Attempt, wait: Wait | None) -> None:
        """What it waits for now."""
        # No change: it is set while the row of a change is written, and would ask for the next one for ever.
        attempt.wait = wait

    def result(self, attempt: Attempt, ending: Ending) -> None:
        """What was read of how it ended."""
        attempt.ending = ending
        self.changed.add(attempt)

    def owned(self, attempt: Attempt, at_mono_s: float) -> None:
        """At that time no other dispatcher had it."""
        attempt.owned_mono_s = at_mono_s

    def reported(self, attempt: Attempt, *, launched: bool = False, started: bool = False, ended: bool = False) -> None:
        """An event about it was posted to Celery's side."""
        was = attempt.reported
        attempt.reported = replace(
            was,
            is_launched=was.is_launched or launched,
            is_started=was.is_started or started,
            is_ended=was.is_ended or ended,
        )

    def _move_and_look(self, attempt: Attempt, move: Move) -> bool:
        if not self._move(attempt, move):
            return False
        self.changed.add(attempt)
        return True

    def _move(self, attempt: Attempt, move: Move) -> bool:
        to = states.after(attempt.state, move)
        if to is None:
            # A fault of ours. In production it must not take the loops down: the next look at the attempt decides anew.
            if self._is_strict:
                raise states.IllegalMoveError(f"{attempt.id}: {move} in the state {attempt.state}")
            logger.error("a move was refused attempt_id=%s state=%s move=%s", attempt.id, attempt.state, move)
            return False
        if attempt.state is State.LAUNCHING:
            self._launching[attempt.namespace] -= 1
        elif to is State.LAUNCHING:
            self._launching[attempt.namespace] += 1
        attempt.state = to
        return True
