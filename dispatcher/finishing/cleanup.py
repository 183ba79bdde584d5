"""The clean-up: saves the log of an ended pod, then deletes or keeps the pod, by its queue's policy.

It is called only after the outcome is stored. A log that cannot be read or a delete that is refused is
tried again with back-off, a bounded number of times, and blocks nobody else. A pod that is kept is labelled
`podyard.dev/done`, which takes it out of every selector of ours. A Secret with its message goes with the pod that owns
it: that is the cluster's garbage collection, not ours. Runs on the loop's thread.
"""

import asyncio
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dispatcher import errors, retry
from dispatcher.attempts.attempt import Attempt
from dispatcher.background import Background
from dispatcher.finishing import pod_log
from dispatcher.kubeapi import client
from dispatcher.manifests import builder, labels, names
from dispatcher.manifests.container_pod_options import PodOptions
from dispatcher.options import Options, QueueProfile
from dispatcher.status import observation

logger = logging.getLogger(__name__)

BACKOFF = retry.Backoff(tries=6)
AT_ONCE = 16
# Fewer: a log is in memory as a whole between its reading and its writing, up to `logs.max_bytes`.
LOGS_AT_ONCE = 4
_TROUBLE = (errors.ApiError, errors.ApiUnavailable, OSError)
"""What may go wrong: the API server's, and that of the folder of logs. Anything else is a mistake of ours."""
_NOTHING_THERE = (400, 404)
"""No such pod, or a container that never started: there is nothing to save or delete."""


@dataclass(frozen=True, kw_only=True)
class EndedPod:
    """An ended pod that is to be cleaned up."""

    attempt_id: str
    namespace: str
    pod: str
    uid: str | None
    profile: QueueProfile
    is_success: bool
    is_gone: bool = False
    """The object is not there any more: there is neither log nor pod."""
    options: PodOptions = field(default_factory=PodOptions)
    """What its sender asked for."""
    epilogue: tuple[str, ...] = ()
    """Lines that follow its log: how it failed, and its events."""
    failed_container: str | None = None
    """The container that failed the pod, if its log is there: it ended."""


class Cleanup:
    """Cleans up behind pods."""

    def __init__(self, kube: client.KubeClient, *, options: Options, background: Background) -> None:
        self._client = kube
        self._options = options
        self._background = background
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._log_slots = asyncio.Semaphore(LOGS_AT_ONCE)
        self.leftovers = 0
        """Pods that could not be deleted after all tries."""

    def take(self, ended: EndedPod) -> None:
        """Takes over an ended pod; returns at once."""
        self._background.spawn(self._clean(ended))

    def kill(self, ended: EndedPod) -> None:
        """Takes over a pod whose task was revoked: it is deleted, unless its sender wants it to be left."""
        if ended.options.on_kill_action == "delete_pod":
            self.delete(ended)
            return
        self._background.spawn(self._leave(ended))

    def delete(self, ended: EndedPod) -> None:
        """Takes over a pod that must end now: its log so far is saved, then it is deleted, whatever the policy."""
        self._background.spawn(self._end(ended))

    async def _leave(self, ended: EndedPod) -> None:
        await self._save_log(ended)
        # Marked though it is left: else the next list would bring it again, and it would be adopted.
        await self._mark_done(ended)

    async def _end(self, ended: EndedPod) -> None:
        if ended.is_gone:
            return
        await self._save_log(ended)
        # Its body runs: it has the pod's own grace period, to react to SIGTERM (P28).
        await self._delete(ended, grace_s=None)

    async def _clean(self, ended: EndedPod) -> None:
        if ended.is_gone:
            return
        async with self._slots:
            # Log before mark or delete: behind those nobody would read it any more.
            await self._save_log(ended)
            is_deleted = await self._is_deleted(ended)
            # Marked before the wait: a dispatcher that starts meanwhile does not find it among what is to be finished.
            if not is_deleted or ended.profile.keep_finished_s > 0:
                await self._mark_done(ended)
        if not is_deleted:
            return
        if ended.profile.keep_finished_s > 0:
            # Without a slot: pods that stay for an hour must not stop the clean-up behind the others.
            await asyncio.sleep(ended.profile.keep_finished_s)
        async with self._slots:
            # The container that decides has ended: what still runs beside it (a sidecar, P20) is not waited for.
            await self._delete(ended, grace_s=0)

    async def _is_deleted(self, ended: EndedPod) -> bool:
        """Whether the pod is deleted. With `delete_active_pod` only one of whose containers some still run."""
        action = finish_action(ended.profile, ended.options)
        if action != "delete_active_pod":
            return action == "delete_pod" or (action == "delete_succeeded_pod" and ended.is_success)
        try:
            pod = await self._client.read_pod(ended.namespace, ended.pod)
        except (errors.ApiError, errors.ApiUnavailable):
            # Not known: a pod that stays can be deleted later, one that is gone cannot be looked at.
            return False
        return (pod.get("status") or {}).get("phase") in ("Pending", "Running")

    async def _save_log(self, ended: EndedPod) -> None:
        try:
            async for one in retry.Tries(Exception, backoff=BACKOFF):
                with one, _passing_over(*_NOTHING_THERE):
                    await self.save_log(ended)
        except Exception as error:  # the steps that follow must not be lost with this one
            _give_up("log", ended, error)

    async def save_log(self, ended: EndedPod) -> None:
        """Writes the pod's log to the log folder, cut at its limit with a line that says so."""
        folder = self._options.log_folder
        if folder is None:
            return
        limit = self._options.log_max_bytes
        # Only around reading and writing: one that waits for its next try keeps no other log from being read.
        async with self._log_slots:
            # One byte more than is kept, which shows that there was more.
            text = await self._read_log(ended, limit=limit + 1)
            if text is None and not ended.epilogue:
                return
            path = log_path(folder, ended.attempt_id)
            await asyncio.to_thread(_write, path, text or b"", limit=limit, epilogue=ended.epilogue)
        logger.debug("log saved attempt_id=%s path=%s", ended.attempt_id, path)

    async def _read_log(self, ended: EndedPod, *, limit: int) -> bytes | None:
        """The logs that are wanted; None where there is none."""
        logs, pod = ended.options.logs, {}
        if logs.is_all or logs.is_all_inits:
            pod = await self._client.read_pod(ended.namespace, ended.pod)
        names = pod_log.containers(pod, logs, base=ended.options.base, failed=ended.failed_container)
        if not names:
            return None
        return await pod_log.read(
            self._client, ended.namespace, ended.pod, names=names, limit_bytes=limit, has_prefix=logs.has_prefix
        )

    async def _mark_done(self, ended: EndedPod) -> None:
        """Marks this very pod; one that has its name by now is another's, and stays as it is."""
        patch = {"metadata": {"uid": ended.uid, "labels": {labels.DONE_LABEL: "true"}}}
        try:
            async for one in retry.Tries(Exception, backoff=BACKOFF):
                # 422 says that a uid does not change, 409 that it was a precondition
                with one, _passing_over(*_NOTHING_THERE, 409, 422):
                    await self._client.patch_pod(ended.namespace, ended.pod, patch)
        except Exception as error:  # the steps that follow must not be lost with this one
            _give_up("mark", ended, error)

    async def _delete(self, ended: EndedPod, *, grace_s: int | None) -> None:
        try:
            async for one in retry.Tries(Exception, backoff=BACKOFF):
                with one, _passing_over(*_NOTHING_THERE):
                    await self._client.delete_pod(ended.namespace, ended.pod, uid=ended.uid, grace_s=grace_s)
        except Exception as error:  # the steps that follow must not be lost with this one
            _give_up("delete", ended, error)
            self.leftovers += 1


@contextmanager
def _passing_over(*statuses: int) -> Iterator[None]:
    """Answers of the API server that leave nothing to do are no errors."""
    try:
        yield
    except errors.ApiError as error:
        if error.status not in statuses:
            raise


def _give_up(step: str, ended: EndedPod, error: Exception) -> None:
    trace = None if isinstance(error, _TROUBLE) else error
    logger.warning(
        "gave up on a step step=%s pod=%s namespace=%s: %s", step, ended.pod, ended.namespace, error, exc_info=trace
    )


def log_path(folder: Path, attempt_id: str) -> Path:
    """Where the log of an attempt is saved: inside `folder`, whatever the id says."""
    # A sender chooses the id: as a label value it has no slash, begins with a
    # letter or digit, and stays distinct by a hash.
    return folder / f"{names.label_value(attempt_id) or '_'}.log"


LOG_MODE = 0o640
"""As the logs of workers: output may hold what not everybody on the machine should read."""
_ACTIONS = {"always": "delete_pod", "succeeded": "delete_succeeded_pod", "never": "keep_pod"}
"""What a queue's rule says -> the word of `on_finish_action`."""


def finish_action(profile: QueueProfile, options: PodOptions) -> str:
    """What becomes of an ended pod: what its sender said, else its queue's rule. Pure."""
    return options.on_finish_action or _ACTIONS[profile.delete]


def _write(path: Path, text: bytes, *, limit: int, epilogue: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # In bytes, as the API server cuts it: a character that is cut in two is the reader's to bear.
    if len(text) > limit:
        text = (
            text[:limit]
            + f"\n… the log is longer than {limit} bytes (logs.max_bytes); the rest was not saved\n".encode()
        )
    if epilogue:
        end = b"" if not text or text.endswith(b"\n") else b"\n"
        text += end + b"".join(f"-- {line}\n".encode() for line in epilogue)
    # Whole and from the beginning, over what is there: a dispatcher before us may have been killed within it (D7).
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, LOG_MODE), "wb") as file:
        file.write(text)


def ended_attempt(attempt: Attempt, *, is_success: bool, epilogue: tuple[str, ...] = ()) -> EndedPod:
    """What the clean-up needs to know of an attempt with a pod."""
    ending = attempt.ending
    lines = epilogue or (ending.epilogue if ending is not None else ())
    return EndedPod(
        attempt_id=attempt.id,
        namespace=attempt.namespace,
        pod=attempt.pod.name,
        uid=attempt.pod.uid,
        profile=attempt.profile,
        is_success=is_success,
        # A deadline has saved its log and deleted it already, or it was gone before anybody could.
        is_gone=ending is not None and ending.is_pod_gone,
        options=attempt.options,
        epilogue=lines if attempt.options.logs.has_events else (),
        failed_container=_failed_container(attempt.seen),
    )


def ended_pod(pod: Mapping[str, Any], *, attempt_id: str, profile: QueueProfile, is_success: bool) -> EndedPod:
    """What the clean-up needs to know of a pod object."""
    metadata = pod["metadata"]
    return EndedPod(
        attempt_id=attempt_id,
        namespace=metadata["namespace"],
        pod=metadata["name"],
        uid=metadata.get("uid"),
        profile=profile,
        is_success=is_success,
        options=_options_of(pod),
        failed_container=_failed_container(observation.observe(pod, base=_options_of(pod).base)),
    )


def _failed_container(seen: observation.Observation) -> str | None:
    return seen.container if seen.verdict == "failed" and seen.exit_code is not None else None


def _options_of(pod: Mapping[str, Any]) -> PodOptions:
    try:
        return builder.pod_options_of(builder.message_of(pod))
    except ValueError:
        # Its message stands in a Secret, or is of another version: then it is cleaned up as its queue says.
        return PodOptions()
