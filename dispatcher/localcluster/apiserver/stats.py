"""How many requests came, by resource and verb, and how they were answered. Counted always; one loop, no locks."""

from collections import Counter
from datetime import datetime
from typing import Any

from dispatcher.localcluster.objects import times


class Stats:
    """Counters since the start, or since the last reset."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begins anew."""
        self.since: datetime = times.now()
        self._requests: Counter[tuple[str, str]] = Counter()
        self._answers: Counter[str] = Counter()

    def asked(self, resource: str, verb: str) -> None:
        """A request came."""
        self._requests[resource, verb] += 1

    def answered(self, status: int | str) -> None:
        """It was answered: a status code, or `cut` where no answer was given."""
        self._answers[str(status)] += 1

    def report(self, *, open_watches: int) -> dict[str, Any]:
        """The JSON form: `requests` by resource and verb, `answers` by status."""
        requests: dict[str, dict[str, int]] = {}
        for (resource, verb), count in sorted(self._requests.items()):
            requests.setdefault(resource, {})[verb] = count
        return {
            "since": times.write_micro(self.since),
            "requests": requests,
            "total": sum(self._requests.values()),
            "answers": dict(sorted(self._answers.items())),
            "openWatches": open_watches,
        }
