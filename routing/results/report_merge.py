"""Merging: what a report changes in the row of its attempt.

A pure function that answers Apply or Stale. Reports may come late, doubled and in any order: the row is the same. The
first verdict stands; another verdict, and another start, is kept as evidence. The moves are those of `store.states`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from routing.results import reported
from routing.store import states

EVIDENCE_MAX = 20
"""Reports kept beyond the verdict: the earliest ones."""

FINAL = states.final(states.ATTEMPT_MOVES)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a row says of how its attempt went."""

    state: str
    started_at: datetime | None = None
    ended_at: datetime | None = None
    host: str | None = None
    pid: int | None = None
    pod: str | None = None
    exit_code: int | None = None
    reason: str | None = None
    cause: str | None = None
    error: str | None = None
    diagnosis: Mapping[str, Any] | None = None
    evidence: tuple[Mapping[str, Any], ...] = ()

    @property
    def is_final(self) -> bool:
        """Whether there is a verdict."""
        return self.state in FINAL

    @property
    def runtime_s(self) -> float | None:
        """Seconds from start to end."""
        if self.started_at is None or self.ended_at is None:
            return None
        return max(0.0, (self.ended_at - self.started_at).total_seconds())


@dataclass(frozen=True)
class Apply:
    """The row becomes `facts`."""

    facts: Facts


@dataclass(frozen=True)
class Stale:
    """Nothing changes, for this reason."""

    reason: str


def merge(row: Facts, report: reported.Outcome) -> Apply | Stale:
    """What `report` makes of `row`. Raises KeyError for a verdict that the table of states does not know."""
    if isinstance(report, reported.StartReport):
        merged = _with_start(row, report)
        reason = "this start is known"
    else:
        merged = _with_end(row if report.started is None else _with_start(row, report.started), report)
        reason = "this verdict is known"
    return Stale(reason) if merged == row else Apply(merged)


def _with_start(row: Facts, start: reported.StartReport) -> Facts:
    """The earliest start is the attempt's; any other is evidence."""
    # Ordered as tuples, which None would not let: of two starts at one time the
    # same one wins, in whatever order they come.
    new = (start.at, start.host or "", start.pid or 0, start.pod or "")
    old = (row.started_at, row.host or "", row.pid or 0, row.pod or "")
    if row.state in states.sources(states.ATTEMPT_MOVES, "running"):
        row = replace(row, state="running")
    if row.started_at is None:
        return replace(row, started_at=start.at, host=start.host or row.host, pid=start.pid, pod=start.pod or row.pod)
    if new == old:
        return row
    if new < old:
        known = _start_evidence(row.started_at, row.host, row.pid, row.pod)
        row = replace(row, started_at=start.at, host=start.host, pid=start.pid, pod=start.pod)
        return _with_evidence(row, known)
    return _with_evidence(row, _start_evidence(start.at, start.host, start.pid, start.pod))


def _with_end(row: Facts, end: reported.EndReport) -> Facts:
    if row.is_final:
        if end.reason == reported.EXPIRED:
            return row  # its result was read before it expired: that is no news
        same = row.state == end.verdict and row.ended_at == end.at
        return row if same else _with_evidence(row, _end_evidence(end))
    # Unlike a report that is late, a verdict that the table does not know is a fault of this program.
    if row.state not in states.sources(states.ATTEMPT_MOVES, end.verdict):
        raise KeyError(f"no move from {row.state} to {end.verdict}")
    return replace(
        row,
        state=end.verdict,
        ended_at=end.at,
        host=row.host or end.host,
        pod=row.pod or end.pod,
        exit_code=end.exit_code,
        reason=end.reason,
        cause=end.cause,
        error=end.error,
        diagnosis=end.diagnosis,
    )


def _with_evidence(row: Facts, entry: Mapping[str, Any]) -> Facts:
    if entry in row.evidence:
        return row
    # Sorted, and the earliest kept: the row is the same in whatever order the reports came (B14).
    entries = sorted((*row.evidence, entry), key=lambda item: (str(item.get("at")), json.dumps(item, sort_keys=True)))
    return replace(row, evidence=tuple(entries[:EVIDENCE_MAX]))


def _start_evidence(at: datetime, host: str | None, pid: int | None, pod: str | None) -> Mapping[str, Any]:
    return {"kind": "started", "at": _iso(at), "host": host, "pid": pid, "pod": pod}


def _end_evidence(end: reported.EndReport) -> Mapping[str, Any]:
    return {
        "kind": "ended",
        "at": _iso(end.at),
        "verdict": end.verdict,
        "reason": end.reason,
        "message": end.message,
        "exit_code": end.exit_code,
    }


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()
