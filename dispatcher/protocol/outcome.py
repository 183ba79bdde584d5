"""An outcome: how a task's body ended inside its pod, as the pod itself reports it.

The pod writes it as its termination message. Kubernetes keeps 4 KiB of that, so a larger outcome goes into the log as
a frame of numbered lines at its end, and the termination message only says how to find it. Pure, and
light: the pod's entry point imports it.
"""

import base64
import binascii
import hashlib
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dispatcher.protocol import typed_json

MESSAGE_LIMIT_BYTES = 4096
"""What Kubernetes keeps of a container's termination message."""
# Container runtimes split lines of more than 16 KiB.
_CHUNK = 8000
_MARK = "podyard-outcome"
_WHOLE_LIMIT_BYTES = 268_435_456
"""What a frame is unpacked to at most: it may have been made to fill the dispatcher's memory."""
_TRACEBACK_LIMIT = 20_000
SLACK_LINES = 200
"""Lines that others of the container may have written behind the frame before they ended."""
STATES = frozenset({"SUCCESS", "FAILURE", "RETRY", "IGNORED", "REJECTED"})


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An exception as data: it is never rebuilt from pickled bytes."""

    type: str
    module: str
    args: Sequence[Any]
    traceback: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one launch of one task ended. `state` is Celery's word; `retry` holds the arguments of `Task.retry`."""

    id: str
    retries: int
    state: str
    value: Any = None
    failure: Failure | None = None
    retry: Mapping[str, Any] | None = None
    runtime_s: float = 0.0
    is_stored: bool = False
    """The pod held credentials and did all that follows itself; the value is then only a text for people."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where in the log a large outcome stands: its last `lines` marked lines."""

    id: str
    retries: int
    lines: int
    sha256: str


class UnreadableOutcome(ValueError):
    """A termination message or frame is not an outcome of this launch; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What the pod writes: the termination message, and before it the lines for its log, if any."""

    message: bytes
    lines: Sequence[str] = field(default_factory=tuple)


def encode(outcome: Outcome, *, limit_bytes: int = MESSAGE_LIMIT_BYTES) -> Encoded:
    """The bytes to write; `limit_bytes` is what the cluster keeps of the termination message.

    Raises what `typed_json.dumps` raises where the value has no JSON form.
    """
    given = {**vars(outcome), "failure": vars(outcome.failure) if outcome.failure is not None else None}
    fields = {"v": 1, **{key: value for key, value in given.items() if value is not None}}
    whole = typed_json.dumps(fields).encode()
    if len(whole) <= limit_bytes:
        return Encoded(message=whole)
    # Base64: a log is text, and what a runtime or a log agent makes of other bytes is its own affair.
    packed = base64.b64encode(zlib.compress(whole, 6)).decode()
    chunks = [packed[start : start + _CHUNK] for start in range(0, len(packed), _CHUNK)]
    lines = [f"{_MARK} {outcome.id} {index}/{len(chunks)} {chunk}" for index, chunk in enumerate(chunks, start=1)]
    head = {"v": 1, "id": outcome.id, "retries": outcome.retries}
    frame = {"lines": len(lines), "sha256": hashlib.sha256(whole).hexdigest()}
    # The frame says how many lines there are and what they are
    # worth: a log is rotated, cut and mixed with others' lines.
    return Encoded(message=typed_json.dumps({**head, "frame": frame}).encode(), lines=lines)


def decode(message: str, *, task_id: str, retries: int) -> Outcome | Frame:
    """The outcome in a termination message, or the frame that holds it.

    Raises UnreadableOutcome where the text is no outcome, or one of another launch.
    """
    fields = _fields(message)
    # The author's code may write the file itself, also with an outcome that it has from elsewhere.
    if (fields.get("id"), fields.get("retries")) != (task_id, retries):
        raise UnreadableOutcome(
            f"the outcome is one of {fields.get('id')!r}, try {fields.get('retries')!r}, not of this pod's task"
        )
    if "frame" in fields:
        return _frame(fields["frame"], task_id=task_id, retries=retries)
    return _outcome(fields)


def read_frame(log: bytes, frame: Frame) -> Outcome:
    """The outcome in the tail of a log. Raises UnreadableOutcome where lines are missing or damaged."""
    prefix = f"{_MARK} {frame.id} ".encode()
    chunks: dict[bytes, bytes] = {}
    # The mark may stand inside of a line: behind what the body printed without a line feed at its end.
    for line in log.splitlines():
        _, found, rest = line.partition(prefix)
        number, space, chunk = rest.partition(b" ")
        if found and space:
            chunks[number] = chunk
    last = f"/{frame.lines}".encode()
    kept = sum(number.endswith(last) for number in chunks)  # counted first: the number that a pod names may be any
    wanted = [f"{index}".encode() + last for index in range(1, min(kept, frame.lines) + 1)]
    if kept < frame.lines or not chunks.keys() >= set(wanted):
        missing = max(1, frame.lines - kept)
        raise UnreadableOutcome(f"{missing} of the {frame.lines} lines of the outcome are not in the log any more")
    try:
        packed = base64.b64decode(b"".join(chunks[number] for number in wanted), validate=True)
        # Bounded while it is unpacked: a few kilobytes can become gigabytes.
        whole = zlib.decompressobj().decompress(packed, _WHOLE_LIMIT_BYTES)
    except (binascii.Error, zlib.error) as error:
        raise UnreadableOutcome(f"the outcome in the log is damaged: {error}") from error
    if hashlib.sha256(whole).hexdigest() != frame.sha256:
        raise UnreadableOutcome("the outcome in the log does not have the announced checksum")
    return _outcome(_fields(whole.decode(errors="replace")))


def strip_frames(log: bytes) -> bytes:
    """A log without the lines of frames: people have no use for them."""
    mark = f"{_MARK} ".encode()
    if mark not in log:
        return log
    return b"".join(line for line in log.splitlines(keepends=True) if not line.startswith(mark))


def shortened(traceback: str) -> str:
    """A traceback cut in the middle: its end says what happened, its start says where from."""
    if len(traceback) <= _TRACEBACK_LIMIT:
        return traceback
    half = _TRACEBACK_LIMIT // 2
    return f"{traceback[:half]}\n… {len(traceback) - 2 * half} characters left out …\n{traceback[-half:]}"


def _fields(text: str) -> dict[str, Any]:
    try:
        fields = typed_json.loads(text)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise UnreadableOutcome(f"the termination message is not an outcome: {text[:120]!r}") from error
    if not isinstance(fields, dict) or fields.get("v") != 1:
        raise UnreadableOutcome(f"the termination message is not an outcome of a known version: {text[:120]!r}")
    return fields


def _frame(fields: Any, *, task_id: str, retries: int) -> Frame:
    lines, sha256 = (fields.get("lines"), fields.get("sha256")) if isinstance(fields, dict) else (None, None)
    if type(lines) is not int or lines < 1 or not isinstance(sha256, str):
        raise UnreadableOutcome("the outcome is in the log, and its frame lacks a field or has a wrong one")
    return Frame(id=task_id, retries=retries, lines=lines, sha256=sha256)


def _outcome(fields: dict[str, Any]) -> Outcome:
    """Its types are checked here: a value of another type would fail in Celery, again and again, when it is stored."""
    state, failure, retry = fields.get("state"), fields.get("failure"), fields.get("retry")
    if not isinstance(state, str) or state not in STATES:
        raise UnreadableOutcome(f"the outcome has the unknown state {state!r:.100}")
    if not isinstance(retry, dict | None):
        raise UnreadableOutcome("the outcome has a wrong field: retry is not a mapping")
    try:
        return Outcome(
            id=fields["id"],
            retries=fields["retries"],
            state=state,
            value=fields.get("value"),
            failure=_failure(failure) if failure else None,
            retry=retry,
            runtime_s=_seconds(fields.get("runtime_s") or 0.0),
            is_stored=fields.get("is_stored") is True,
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UnreadableOutcome(f"the outcome lacks a field or has a wrong one: {error}") from error


def _failure(fields: Any) -> Failure:
    failure = Failure(**fields)
    texts = (failure.type, failure.module, failure.traceback)
    if not all(isinstance(text, str) for text in texts) or not failure.type or not isinstance(failure.args, list):
        raise TypeError("failure is not as an exception is written")
    return failure


def _seconds(number: Any) -> float:
    seconds = float(number)
    if not 0 <= seconds < math.inf:
        raise ValueError(f"runtime_s is {seconds}")
    return seconds
