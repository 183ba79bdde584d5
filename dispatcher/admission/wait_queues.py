"""Wait queues: what waits for a pod, in order of receipt, one for each queue and namespace. Pure.

Within a line nobody is overtaken. The lines of one queue are served by whose head came first, so a queue keeps its
order as far as its namespaces let it, and a namespace that pauses holds nobody else. Queues take turns.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from datetime import datetime
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """What a line looks at."""

    @property
    def queue(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def received_at(self) -> datetime: ...


W = TypeVar("W", bound=Waiting)


class WaitQueues(Generic[W]):
    """All that waits."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, dict[str, deque[W]]] = OrderedDict()
        """Queue -> namespace -> line; the queue whose turn is next comes first. None of them is empty."""

    def __iter__(self) -> Iterator[deque[W]]:
        """Each line."""
        for lines in self._queues.values():
            yield from lines.values()

    def __len__(self) -> int:
        return sum(map(len, self))

    def add(self, one: W) -> None:
        """Into its line, at the place of the time at which it was received."""
        line = self._queues.setdefault(one.queue, {}).setdefault(one.namespace, deque())
        # From the end: what is new is nearly always the latest; only what is
        # parked or requeued goes further to the front.
        place = len(line)
        while place and line[place - 1].received_at > one.received_at:
            place -= 1
        line.insert(place, one)

    def remove(self, one: W) -> bool:
        """Out of its line. Says whether it was there."""
        line = self._queues.get(one.queue, {}).get(one.namespace, deque())
        if one not in line:
            return False
        line.remove(one)
        self._tidy(one)
        return True

    def heads(self) -> Iterator[W]:
        """The first of each line, in the order in which they may go. Ends with the first that is taken."""
        for lines in self._queues.values():
            yield from sorted((line[0] for line in lines.values()), key=_received)

    def take(self, head: W) -> None:
        """Takes out the first of a line. Its queue has had its turn."""
        self._queues[head.queue][head.namespace].popleft()
        # One turn per attempt taken: a queue of ten thousand does not keep one of three from its slots.
        self._queues.move_to_end(head.queue)
        self._tidy(head)

    def _tidy(self, one: W) -> None:
        lines = self._queues[one.queue]
        if not lines[one.namespace]:
            del lines[one.namespace]
        if not lines:
            del self._queues[one.queue]


def _received(one: Waiting) -> datetime:
    return one.received_at
