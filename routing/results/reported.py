"""What was reported of an attempt: that it started, or how it ended.

Read from reports and from results as Celery stores them. Both halves report in the same words, so nothing here knows
of pods. Pure: values in, values out; what cannot be read becomes that attempt's failure and nobody else's.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from dispatcher.status import diagnosis, reasons

ERROR_MAX_CHARS = 100_000
REASON_MAX_CHARS = 500
EXPIRED = "ResultExpired"
"""The reason of an attempt that ran, or may have run, and of whose end the result backend knows nothing any more."""
GONE = "it had expired (results.expires_s), or was thrown away or lost with the server's data"
SKIPPED = "Skipped"
"""The reason in the details of a failure that skips its task (`skip_on_exit_code`)."""
CAUSES = frozenset({"application", "infrastructure", "unknown"})


@dataclass(frozen=True, kw_only=True)
class StartReport:
    """Somebody began to run the attempt."""

    attempt_id: str
    at: datetime
    host: str | None = None
    pid: int | None = None
    pod: str | None = None


@dataclass(frozen=True, kw_only=True)
class EndReport:
    """The attempt ended."""

    attempt_id: str
    verdict: str
    """A final state of attempts: succeeded, failed, revoked or lost."""
    at: datetime
    value: Any = None
    """What the task returned; None unless it succeeded."""
    message: str | None = None
    """One sentence for people; None for a success."""
    error: str | None = None
    """The message, and the traceback where there is one."""
    reason: str | None = None
    """A word: an exception's class, a pod's reason."""
    cause: str | None = None
    exit_code: int | None = None
    host: str | None = None
    pod: str | None = None
    started: StartReport | None = None
    diagnosis: Mapping[str, Any] | None = None
    """Of a failure: `explanation` and `what_to_do`, and what is known of container, node and memory."""
    is_skip: bool = False
    """A failure whose details say `Skipped`: there was nothing to do."""


Outcome = StartReport | EndReport

_VERDICTS = {"SUCCESS": "succeeded", "FAILURE": "failed", "REVOKED": "revoked"}
# Billiard's words: of a child that ended, Celery's WorkerLostError has nothing but this text.
_EXIT_CODE = re.compile(r"exitcode (\d+)")
_SIGNAL = re.compile(r"signal (\d+)")


def read_started(fields: Mapping[str, Any]) -> StartReport | None:
    """The start in a report or a claim; None where it does not make sense."""
    attempt_id, at = fields.get("id"), _time(fields.get("at"))
    if not isinstance(attempt_id, str) or at is None:
        return None
    return StartReport(
        attempt_id=attempt_id,
        at=at,
        host=_text(fields.get("host")),
        pid=_number(fields.get("pid")),
        pod=_text(fields.get("pod")),
    )


def read_result(attempt_id: str, meta: Mapping[str, Any], *, now: datetime) -> EndReport | None:
    """How an attempt ended, from its result as Celery stores it; None while the result is not final."""
    verdict = _VERDICTS.get(str(meta.get("status")))
    if verdict is None:
        return None
    started = meta.get("started")
    ended = EndReport(
        attempt_id=attempt_id,
        verdict=verdict,
        at=_time(meta.get("date_done")) or now,
        started=read_started({"id": attempt_id, **started}) if isinstance(started, Mapping) else None,
    )
    if verdict == "succeeded":
        return replace(ended, value=meta.get("result"))
    return _failure(ended, meta.get("result"), traceback=_text(meta.get("traceback")))


def unreadable(attempt_id: str, why: str, *, at: datetime) -> EndReport:
    """The failure of an attempt whose result cannot be read."""
    message = f"the result of this attempt cannot be read: {why}"
    ended = EndReport(attempt_id=attempt_id, verdict="failed", at=at, message=message, error=message)
    return _diagnosed(replace(ended, reason="UnreadableResult", cause="unknown"), {})


def lost(attempt_id: str, why: str, *, at: datetime) -> EndReport:
    """The verdict on an attempt of which nobody will ever report: a fault of the infrastructure."""
    ended = EndReport(attempt_id=attempt_id, verdict="lost", at=at, message=why, error=why)
    return _diagnosed(replace(ended, reason="Lost", cause="infrastructure"), {})


def refused(attempt_id: str, why: str, details: Mapping[str, Any], *, at: datetime) -> EndReport:
    """The failure of an attempt whose pod's message could not be made, or was not read in time.

    `details` as those of a `TaskFailed`.
    """
    ended = EndReport(attempt_id=attempt_id, verdict="failed", at=at, message=why[:REASON_MAX_CHARS], error=why)
    return _detailed(replace(ended, cause="application"), details, place="pod")


def expired(attempt_id: str, why: str, *, at: datetime) -> EndReport:
    """The verdict on an attempt that ran, or may have run, and whose result the result backend has no more."""
    ended = EndReport(attempt_id=attempt_id, verdict="lost", at=at, message=why, error=why)
    return _diagnosed(replace(ended, reason=EXPIRED, cause="infrastructure"), {})


def read_report(report: Mapping[str, Any], *, now: datetime) -> EndReport | None:
    """The end that a report tells of where its result is not there any more; None for one without an id."""
    attempt_id, said = report.get("id"), str(report.get("state"))
    if not isinstance(attempt_id, str):
        return None
    at = _time(report.get("at")) or now
    if _VERDICTS.get(said) == "revoked":
        return revoked(attempt_id, "it was revoked; what was said about it has expired", at=at)
    why = f"it ended ({said}), and its result was gone from the result backend before the scheduler read it: {GONE}"
    return expired(attempt_id, why, at=at)


def revoked(attempt_id: str, why: str, *, at: datetime) -> EndReport:
    """The verdict on an attempt that was stopped before anybody ran it."""
    return EndReport(attempt_id=attempt_id, verdict="revoked", at=at, message=why, error=why, reason="Revoked")


def _failure(ended: EndReport, result: Any, *, traceback: str | None) -> EndReport:
    """Fill in why it failed, from an exception as Celery writes it."""
    fields = result if isinstance(result, Mapping) else {"exc_type": "Error", "exc_message": [str(result)]}
    kind = _text(fields.get("exc_type")) or "Error"
    words = fields.get("exc_message")
    parts = list(words) if isinstance(words, list | tuple) else [words]
    # PodFailed and TaskFailed have two arguments, a message and details; any
    # other exception has what its author gave it.
    details = parts[1] if len(parts) == 2 and isinstance(parts[1], Mapping) else {}
    message = str(parts[0]) if details or len(parts) == 1 else ", ".join(map(str, parts))
    ended = replace(
        ended,
        message=(message or kind)[:REASON_MAX_CHARS],
        error="\n".join(text for text in (message, traceback) if text)[:ERROR_MAX_CHARS] or kind,
        reason=kind,
        # An exception without details was raised by the body; who has other knowledge says so in the details.
        cause="application" if ended.verdict == "failed" else None,
    )
    if ended.verdict == "revoked":
        return _diagnosed(replace(ended, reason="Revoked"), {})
    # Before the details: this one is raised by Celery, not by the body.
    if kind == "WorkerLostError":
        return _diagnosed(_worker_lost(ended, message), {})
    return _detailed(ended, details, place=_place(ended, details))


def _place(ended: EndReport, details: Mapping[str, Any]) -> reasons.Place:
    """A failure that names its pod is the pod's; any other one is of the body, wherever that ran."""
    if _text(details.get("pod")) is not None:
        return "container"
    return "pod" if ended.started is not None and ended.started.pod is not None else "worker"


def _detailed(ended: EndReport, details: Mapping[str, Any], *, place: reasons.Place) -> EndReport:
    """Put in what PodFailed and TaskFailed carry beside their message."""
    cause, text = details.get("cause"), _text(details.get("message"))
    ended = replace(
        ended,
        error=ended.error if text is None else f"{ended.message}\n{text}"[:ERROR_MAX_CHARS],
        reason=_text(details.get("reason")) or ended.reason,
        cause=cause if cause in CAUSES else ended.cause,
        is_skip=details.get("reason") == SKIPPED,
        exit_code=_number(details.get("exit_code")),
        pod=_text(details.get("pod")),
        host=_text(details.get("node")) or _text(details.get("host")),
    )
    return _diagnosed(ended, details, place=place)


_KNOWN = ("container", "node", "memory_limit", "memory_request")


def _diagnosed(ended: EndReport, details: Mapping[str, Any], *, place: reasons.Place = "worker") -> EndReport:
    """With what the details say of it, else with what the table of reasons says."""
    known: dict[str, Any] = {name: text for name in _KNOWN if (text := _text(details.get(name))) is not None}
    if details.get("is_of_node") is True:
        known["is_of_node"] = True
    explanation, what_to_do = _text(details.get("explanation")), _text(details.get("what_to_do"))
    # A dispatcher has seen pod, node and events and sends a better diagnosis than can be made from a reason here.
    if explanation is None or what_to_do is None:
        symptoms = diagnosis.Symptoms(
            reason=ended.reason,
            exit_code=ended.exit_code,
            message=ended.message or "",
            container=known.get("container"),
            node=known.get("node"),
            memory_limit=known.get("memory_limit"),
            place=place,
        )
        found = diagnosis.diagnose(symptoms)
        explanation, what_to_do = found.explanation, found.what_to_do
    return replace(ended, diagnosis={"explanation": explanation, "what_to_do": what_to_do, **known})


def _worker_lost(ended: EndReport, message: str) -> EndReport:
    """A worker's child ended under the task: an exit code is the author's doing, the sender of a signal is unknown."""
    code, signal = _EXIT_CODE.search(message), _SIGNAL.search(message)
    # Beyond 128 a shell means "killed by signal N - 128".
    if code and int(code[1]) <= 128:
        text = f"the task ended its own process with exit code {code[1]}"
        return replace(
            ended, reason="ProcessExited", exit_code=int(code[1]), message=text, error=f"{text}\n{ended.error}"
        )
    number = int(signal[1]) if signal else (int(code[1]) - 128 if code else None)
    text = f"the process of the task was killed by signal {number}" if number else "the process of the task is gone"
    if number == 9:
        text += " (by hand, or by the kernel because memory ran out)"
    return replace(
        ended,
        reason="ProcessKilled",
        cause="unknown",
        exit_code=128 + number if number else None,
        message=text,
        error=f"{text}\n{ended.error}",
    )


def _time(value: Any) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    # Without a zone it is UTC: every process of ours runs Celery with `enable_utc`.
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> int | None:
    # The columns are 32-bit integers on PostgreSQL, and True is an int in Python.
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31 else None
