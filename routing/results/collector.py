"""The collector: what the workers of both halves reported, as outcomes that can be merged.

It blocks on one list, so that a report wakes it at once, and looks up results in bulk. It decides nothing and writes
nothing; the scheduler's loop calls it. Raises ResultsUnavailable where the result backend is away.
"""

import contextlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import redis

from routing.results import backend, reported

DRAIN = 1000
"""Reports taken at once."""
# What one MGET may bring into memory: a single result may have a megabyte (`results.max_bytes`), and there are many.
CHUNK_BYTES = 16 * 1024 * 1024
CHUNK_KEYS = 500
# Assumed of a value whose size no report has told.
DEFAULT_SIZE = 4096


class ResultsUnavailable(Exception):
    """The result backend cannot be reached: wait and try again."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What came in: outcomes to merge, and whether somebody asked to look at the database."""

    outcomes: Sequence[reported.Outcome] = ()
    expired: Sequence[reported.EndReport] = ()
    """Attempts that ended and whose results are gone: what to make of them where nobody else knows more."""
    is_wake: bool = False


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the keys of open attempts say."""

    outcomes: Sequence[reported.Outcome] = ()
    holders: Mapping[str, str] = field(default_factory=dict)
    """Attempt without a result -> the worker (its instance) that claimed it."""
    blocked: frozenset[str] = frozenset()
    claimed: frozenset[str] = frozenset()
    """Attempts without a result that somebody claims, a worker or a dispatcher."""


class Collector:
    """Reads reports, results and claims through the app's result backend."""

    def __init__(self, reporting: backend.ReportingBackend) -> None:
        self._backend = reporting
        self._redis = reporting.client
        self._kept: list[Mapping[str, Any]] = []
        self._has_more = False

    @property
    def has_more(self) -> bool:
        """Whether reports may wait that `listen` has not told of."""
        return self._has_more or bool(self._kept)

    def listen(self, timeout_s: float, *, now: datetime) -> Heard:
        """Wait for reports, at most `timeout_s`. What cannot be looked up now is kept for the next call."""
        with _mapped():
            # BLPOP has removed them: until their results are read they stand here
            # alone, or in the keys, where the sweep looks.
            reports = [*self._kept, *self._take(timeout_s)]
            self._kept = reports
            found = self._read(reports, now)
            self._kept = []
        return found

    def look_up(self, attempt_ids: Sequence[str], *, now: datetime) -> Seen:
        """Ask for the results and claims of these attempts, whether anybody reported or not."""
        with _mapped():
            # Results before claims: an attempt that ends in between shows its claim
            # only, and is looked up by the next sweep.
            results = self._results(attempt_ids, sizes={}, now=now)
            rest = [attempt_id for attempt_id in attempt_ids if attempt_id not in results]
            claims = self._claims(rest)
        started = [reported.read_started({"id": attempt_id, **claim}) for attempt_id, claim in claims.items()]
        return Seen(
            outcomes=[*results.values(), *(start for start in started if start is not None)],
            holders={attempt_id: str(claim["instance"]) for attempt_id, claim in claims.items() if "instance" in claim},
            blocked=frozenset(attempt_id for attempt_id, claim in claims.items() if backend.BLOCKED in claim),
            claimed=frozenset(attempt_id for attempt_id, claim in claims.items() if backend.BLOCKED not in claim),
        )

    def complete_since(self, *, now: datetime) -> datetime:
        """Since when a claim or result that was written must still be there: what is missing was never written.

        Earlier ones may have expired, or were lost with the server's data: its marker goes with them. A server that
        threw keys away since the last look (`maxmemory-policy`) knows nothing for certain of what came before.
        """
        with _mapped():
            told = _decoded(self._redis.get(self._backend.keys.era) or b"")
            counted = _evictions(self._redis)
            # The marker is a key like the claims: where the server's data is lost
            # it is gone, too, and "since" begins anew.
            era = _era(told, counted, now)
            if era != told:
                self._redis.set(self._backend.keys.era, json.dumps(era))
        # Claims expire after `claim_s`, so the absence of an older one says nothing.
        return max(datetime.fromisoformat(era["at"]), now - timedelta(seconds=self._backend.claim_s))

    def dead(self, instances: Collection[str]) -> set[str]:
        """Those workers that have no heartbeat now."""
        asked = sorted(instances)
        with _mapped():
            beats = self._redis.mget([self._backend.keys.heartbeat(instance) for instance in asked]) if asked else []
        return {instance for instance, beat in zip(asked, beats, strict=True) if beat is None}

    def bodies(self, attempt_ids: Sequence[str]) -> set[str]:
        """Those attempts of which a Celery worker says now that their bodies run."""
        with _mapped():
            beats = self._redis.mget([self._backend.keys.body(one) for one in attempt_ids]) if attempt_ids else []
        return {attempt_id for attempt_id, beat in zip(attempt_ids, beats, strict=True) if beat is not None}

    def block(self, attempt_id: str) -> bool:
        """Make sure that no Celery worker runs an attempt any more; False if one has begun."""
        with _mapped():
            return self._backend.block(attempt_id)

    def doubt(self, attempt_id: str) -> None:
        """Make sure that an attempt gets no second pod, though its claim is lost."""
        with _mapped():
            self._backend.doubt(attempt_id)

    def _take(self, timeout_s: float) -> list[Mapping[str, Any]]:
        key = self._backend.keys.reports
        # To BLPOP a timeout of 0 means to wait for ever.
        if timeout_s > 0:
            first = self._redis.blpop([key], timeout=timeout_s)
            if first is None:
                return []
            # BLPOP gives one element only; the others that wait come by one more call.
            raw = [first[1], *(self._redis.lpop(key, DRAIN) or [])]
        else:
            raw = self._redis.lpop(key, DRAIN) or []
        self._has_more = len(raw) >= DRAIN
        return [report for report in map(_decoded, raw) if report is not None]

    def _read(self, reports: Iterable[Mapping[str, Any]], now: datetime) -> Heard:
        starts: list[reported.Outcome] = []
        ended: dict[str, int] = {}
        told: dict[str, reported.EndReport] = {}
        is_wake = False
        for report in reports:
            kind, attempt_id = report.get("kind"), report.get("id")
            if kind == "wake":
                is_wake = True
            elif kind == "ended" and isinstance(attempt_id, str):
                ended[attempt_id] = int(report.get("size") or DEFAULT_SIZE)
                if (end := reported.read_report(report, now=now)) is not None:
                    told[attempt_id] = end
            elif kind == "started" and (start := reported.read_started(report)) is not None:
                starts.append(start)
        results = self._results(list(ended), sizes=ended, now=now)
        known = {start.attempt_id for start in starts}
        # A child that was killed had claimed the attempt; its end is stored by the
        # worker's main process, which knows no start.
        silent = [one for one, end in results.items() if isinstance(end, reported.EndReport) and end.started is None]
        claims = self._claims([attempt_id for attempt_id in silent if attempt_id not in known])
        for attempt_id, claim in claims.items():
            if (start := reported.read_started({"id": attempt_id, **claim})) is not None:
                starts.append(start)
        # A report says "ended" and there is no key: nobody will write it again (B23).
        expired = [end for attempt_id, end in told.items() if attempt_id not in results]
        return Heard(outcomes=[*starts, *results.values()], expired=expired, is_wake=is_wake)

    def _results(
        self, attempt_ids: Sequence[str], *, sizes: Mapping[str, int], now: datetime
    ) -> dict[str, reported.Outcome]:
        """The verdicts that are stored. A result that cannot be read is a failure of its attempt alone."""
        found: dict[str, reported.Outcome] = {}
        for chunk in _chunks(attempt_ids, sizes):
            keys = [self._backend.get_key_for_task(attempt_id) for attempt_id in chunk]
            for attempt_id, text in zip(chunk, self._redis.mget(keys), strict=True):
                ended = None if text is None else _result(attempt_id, text, now)
                if ended is not None:
                    found[attempt_id] = ended
        return found

    def _claims(self, attempt_ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        for chunk in _chunks(attempt_ids, {}):
            values = self._redis.mget([self._backend.keys.claim(attempt_id) for attempt_id in chunk])
            claims = zip(chunk, (None if value is None else _decoded(value) for value in values), strict=True)
            found.update({attempt_id: claim for attempt_id, claim in claims if claim is not None})
        return found


def _result(attempt_id: str, text: bytes, now: datetime) -> reported.Outcome | None:
    try:
        meta = json.loads(text)
        if not isinstance(meta, dict):
            return reported.unreadable(attempt_id, f"it is a {type(meta).__name__}, not an object", at=now)
        return reported.read_result(attempt_id, meta, now=now)
    except (ValueError, RecursionError) as error:
        return reported.unreadable(attempt_id, str(error), at=now)


def _evictions(client: Any) -> tuple[str, int] | None:
    """How many keys this run of the server threw away for want of memory; None where it does not say."""
    try:
        told = {**client.info("server"), **client.info("stats")}
        return str(told["run_id"]), int(told["evicted_keys"])
    except (redis.ResponseError, KeyError, ValueError):  # an account that may not ask, a server that does not count
        return None


def _era(told: Mapping[str, Any] | None, counted: tuple[str, int] | None, now: datetime) -> Mapping[str, Any]:
    """What the marker says from now on. Pure."""
    run_id, evicted = counted or ("", 0)
    known = told or {}
    # The counter begins at 0 with each run of the server: of another run any eviction is news.
    has_lost = evicted > (known.get("evicted", 0) if known.get("run_id") == run_id else 0)
    try:
        at = datetime.fromisoformat(known["at"])
    except (KeyError, TypeError, ValueError):
        at = now
    return {"at": (now if has_lost else at).isoformat(), "run_id": run_id, "evicted": evicted}


def _decoded(text: bytes) -> Mapping[str, Any] | None:
    """A report or claim; None if it is none (another program may write into the same server)."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _chunks(attempt_ids: Sequence[str], sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Ids in groups whose values fit in memory together."""
    chunk: list[str] = []
    weight = 0
    for attempt_id in attempt_ids:
        size = sizes.get(attempt_id, DEFAULT_SIZE)
        if chunk and (weight + size > CHUNK_BYTES or len(chunk) >= CHUNK_KEYS):
            yield chunk
            chunk, weight = [], 0
        chunk.append(attempt_id)
        weight += size
    if chunk:
        yield chunk


@contextlib.contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise ResultsUnavailable(str(error).strip() or type(error).__name__) from error
