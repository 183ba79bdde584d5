"""Pod results: what an ended pod is worth to its task. Between ⑦, what its status says, and ⑧, what is replayed.

A task pod leaves an outcome in its termination message or in its log. A pod of any image is judged by the exit code of
its deciding container, may be skipped by it, and may leave a result by its sidecar. A failure that no outcome explains
is completed with what the cluster said about the pod. Called once per ended pod; never raises for what a pod did.
"""

import asyncio
import logging
import time
from dataclasses import replace

from dispatcher import errors, retry
from dispatcher.attempts import endings, sightings
from dispatcher.attempts.attempt import Attempt
from dispatcher.kubeapi import client
from dispatcher.manifests import merge, result_sidecar, workload
from dispatcher.protocol import outcome
from dispatcher.status import observation, pod_events

Result = outcome.Outcome | errors.PodFailed
Epilogue = tuple[str, ...]
"""What is added to a log: how the pod failed, and what the cluster said about it."""
GONE_TRIES = 5
"""How often a log is asked for that the server says is not there."""
LOG_S = 900.0
"""How long a log is waited for while there is no answer, or one that may be another one soon: the API server or the
node is away, or permissions are not known yet after a restart. The pod stays meanwhile, and its outcome with it."""
LATE_LINES = 50_000
"""How much may have been written behind an outcome at most."""
EVENTS_S = 5.0
"""Events are for people: after so long a failure is reported without them."""
MESSAGE_CHARS = 4096
"""What is kept of a message of many lines, such as the end of a log; one line has room in the failure's own message."""
_NO_ANSWER = (errors.ApiError, errors.ApiUnavailable)
_GONE = frozenset({400, 404, 410})
"""Answers that say that there is no such log."""

logger = logging.getLogger(__name__)


async def read(
    kube: client.KubeClient,
    attempt: Attempt,
    seen: observation.Observation,
    *,
    report: result_sidecar.SidecarReport | None = None,
    max_bytes: int,
) -> tuple[Result, Epilogue]:
    """How the attempt of an ended pod ended: its outcome, or the failure that stands for it; and lines for its log.

    `report` is what the result sidecar said, where there is one; `max_bytes` what a result may have.
    """
    if attempt.is_any_image:
        result = await _any_image(kube, attempt, seen, report=report, max_bytes=max_bytes)
    else:
        result = await _task(kube, attempt, seen)
    return await explained(kube, attempt, result) if isinstance(result, errors.PodFailed) else (result, ())


async def explained(
    kube: client.KubeClient, attempt: Attempt, failure: errors.PodFailed
) -> tuple[errors.PodFailed, Epilogue]:
    """The failure with the warning that says more of it in its message, and lines for its log with all events."""
    uid = attempt.pod.uid
    # A skip was asked for by the author, and needs no explanation of the cluster's.
    if isinstance(failure, errors.PodSkipped) or uid is None:
        return endings.diagnosed(failure), ()
    try:
        async with asyncio.timeout(EVENTS_S):
            events = pod_events.read(await kube.list_events(attempt.namespace, uid=uid))
    except (*_NO_ANSWER, TimeoutError):
        # Never raised: a failure without its events is a failure still, and its task waits for it.
        return endings.diagnosed(failure), ()
    diagnosed = endings.diagnosed(failure, events=tuple(events))
    details = diagnosed.details
    epilogue = (
        str(failure),
        f"that is: {details['explanation']}; to do: {details['what_to_do']}",
        *(event.line for event in events),
    )
    said = f"{failure.message} {details.get('message', '')}"
    warning = pod_events.telling(events, reason=details.get("reason"), message=said)
    if warning is None:
        return diagnosed, epilogue
    whole = errors.PodFailed(f"{diagnosed.message}; the cluster said: {warning.reason}: {warning.message}", details)
    return whole, epilogue


async def _task(kube: client.KubeClient, attempt: Attempt, seen: observation.Observation) -> Result:
    message = seen.outcome or ""
    try:
        # The outcome before the exit code: it says all that this says, and the author's exception with it.
        found = outcome.decode(message, task_id=attempt.id, retries=attempt.message.retries)
        if isinstance(found, outcome.Outcome):
            return found
        return await _framed(kube, attempt, found)
    except _NO_ANSWER as error:
        if seen.verdict == "failed":
            return failed(attempt, seen)
        return errors.PodFailed(
            f"the pod {attempt.pod.name} ended with exit code 0, but its outcome could not be read: {error}",
            {"reason": "ResultLost", "cause": "infrastructure", "pod": attempt.pod.name, "exit_code": seen.exit_code},
        )
    except outcome.UnreadableOutcome as error:
        # Killed before it could leave one (memory, a node): what the cluster says of its end is the outcome.
        if seen.verdict == "failed":
            return failed(attempt, seen)
        why = str(error) if message else "it left no outcome"
        return errors.PodFailed(
            f"the pod {attempt.pod.name} ended with exit code 0, but {why}; has its image this version of Podyard?",
            {"reason": "NoOutcome", "cause": "application", "pod": attempt.pod.name, "exit_code": seen.exit_code},
        )


async def _framed(kube: client.KubeClient, attempt: Attempt, frame: outcome.Frame) -> outcome.Outcome:
    """An outcome in the log. Threads of the body may have written on behind it: then a longer end of it is read."""
    try:
        # The end alone: the frame is written last, and a body may have printed gigabytes before.
        lines = frame.lines + outcome.SLACK_LINES
        return outcome.read_frame(await _log(kube, attempt, container=merge.BASE, tail_lines=lines), frame)
    except outcome.UnreadableOutcome:
        lines = frame.lines + LATE_LINES
        return outcome.read_frame(await _log(kube, attempt, container=merge.BASE, tail_lines=lines), frame)


async def _any_image(
    kube: client.KubeClient,
    attempt: Attempt,
    seen: observation.Observation,
    *,
    report: result_sidecar.SidecarReport | None,
    max_bytes: int,
) -> Result:
    if is_skipped(attempt, seen):
        return errors.PodSkipped(
            f"the pod {attempt.pod.name} was skipped: it ended with exit code {seen.exit_code} (skip_on_exit_code)",
            {"reason": "Skipped", "exit_code": seen.exit_code, "pod": attempt.pod.name},
        )
    if seen.verdict == "failed":
        return expired(attempt, seen) or failed(attempt, seen)
    done = outcome.Outcome(id=attempt.id, retries=attempt.message.retries, state="SUCCESS", runtime_s=_runtime_s(seen))
    path = attempt.options.result_path
    if path is None:
        return done
    try:
        data = await _result_bytes(kube, attempt, report or result_sidecar.SidecarReport(kind="lost"), path, max_bytes)
        return replace(done, value=result_sidecar.value(data, path=path))
    except errors.PodFailed as failure:
        details = {**failure.details, "pod": attempt.pod.name, "exit_code": seen.exit_code}
        return errors.PodFailed(f"the pod {attempt.pod.name} succeeded, but {failure.message}", details)


def is_skipped(attempt: Attempt, seen: observation.Observation) -> bool:
    """Whether the deciding container ended by itself with an exit code that means "skipped"."""
    # Not where the cluster ended it: a container that is killed may end with the very same code.
    codes = attempt.options.skip_on_exit_code
    return seen.exit_code in codes and seen.container == attempt.options.base and seen.cause != "infrastructure"


async def _result_bytes(
    kube: client.KubeClient, attempt: Attempt, report: result_sidecar.SidecarReport, path: str, max_bytes: int
) -> bytes:
    """The bytes of the result's file. Raises PodFailed."""
    # A small result stands in the sidecar's own termination message, which is 4 KiB at most; a larger one in its log.
    if report.kind in ("nothing", "here"):
        return report.data
    if report.kind != "log":
        raise result_sidecar.failure(report, path=path, max_bytes=max_bytes)
    try:
        log = await _log(kube, attempt, container=result_sidecar.NAME)
    except _NO_ANSWER as error:
        raise errors.PodFailed(
            f"its result could not be read from the log of the container {result_sidecar.NAME!r}: {error}",
            {"reason": "ResultLost", "cause": "infrastructure"},
        ) from error
    return result_sidecar.read_log(log, report)


async def _log(kube: client.KubeClient, attempt: Attempt, *, container: str, tail_lines: int | None = None) -> bytes:
    """A log that holds an outcome. Raises the last answer where it is not there, or did not come for too long."""
    until_mono_s = time.monotonic() + LOG_S
    # Logs come from the node: a kubelet that is busy or starts anew must not cost a result that is there.
    async for one in retry.Tries(_NO_ANSWER):
        with one:
            log = await kube.read_log(attempt.namespace, attempt.pod.name, container=container, tail_lines=tail_lines)
        if one.error is None or one.failures < GONE_TRIES:
            continue
        is_gone = isinstance(one.error, errors.ApiError) and one.error.status in _GONE
        if is_gone or time.monotonic() > until_mono_s:
            raise one.error
        if one.failures == GONE_TRIES:
            logger.warning(
                "an outcome waits in its pod's log attempt_id=%s pod=%s: %s", attempt.id, attempt.pod.name, one.error
            )
    return log


def failed(attempt: Attempt, seen: observation.Observation) -> errors.PodFailed:
    """The failure of a pod, in the words of its status."""
    whose = f"its container {seen.container}: " if seen.container not in (None, attempt.options.base) else ""
    parts = [f"the pod {attempt.pod.name} failed: {whose}{seen.reason or 'no reason given'}"]
    if seen.exit_code is not None:
        parts.append(f"exit code {seen.exit_code}")
    text = (seen.message or "").strip()
    if text:
        # The last line: with `FallbackToLogsOnError` it is the end of the log, in Python the exception itself.
        parts.append(text.splitlines()[-1].strip()[:2000])
    known = endings.details(attempt, seen)
    if "\n" in text:
        known["message"] = text[-MESSAGE_CHARS:]
    return errors.PodFailed(", ".join(parts), known)


def expired(attempt: Attempt, seen: observation.Observation) -> errors.PodFailed | None:
    """The failure of a workload whose pod came so late that its token was refused; None for every other pod."""
    started_at, ended_at = sightings.time_of(seen.started_at), sightings.time_of(seen.ended_at)
    if not workload.was_too_late(attempt.message, started_at=started_at, ended_at=ended_at):
        return None
    return errors.PodFailed(
        f"the pod {attempt.pod.name} came too late: the workload's token had expired while it waited",
        {**endings.details(attempt, seen), "reason": workload.EXPIRED, "cause": "infrastructure"},
    )


def _runtime_s(seen: observation.Observation) -> float:
    started_at, ended_at = sightings.time_of(seen.started_at), sightings.time_of(seen.ended_at)
    if started_at is None or ended_at is None:
        return 0.0
    return max(0.0, (ended_at - started_at).total_seconds())
