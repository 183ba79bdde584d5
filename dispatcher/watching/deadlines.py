"""Deadlines: what becomes of an attempt whose wait has lasted as long as its rule allows.

Where the rule is to wait on, people are told. Else the attempt ends, but never while it may run: a pod is deleted
first, and only as it was read last, so that one which has started meanwhile is left alone and its attempt goes on.
While the API server gives no clear answer nothing ends. On the loop's thread.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from dispatcher import errors
from dispatcher.attempts import current_wait, wait_rules
from dispatcher.attempts.attempt import Attempt
from dispatcher.background import Background
from dispatcher.finishing import result_reader
from dispatcher.finishing.completion import Endings
from dispatcher.kubeapi import client
from dispatcher.manifests import builder, names
from dispatcher.status import observation

logger = logging.getLogger(__name__)

AGAIN_S = 5.0
"""How long an attempt that could not be ended is left in peace."""
TELL_AGAIN_S = 600.0
"""Waits that are too long and go on are told at most so often for each queue and kind."""


class Deadlines:
    """Acts on waits that are over.

    `on_pod` takes a pod as read now, `withdraw` takes an attempt out of the line of those that get a pod, `save_log`
    saves what a pod has printed.
    """

    def __init__(
        self,
        cluster: client.KubeClient,
        *,
        owner: str,
        endings: Endings,
        background: Background,
        on_pod: Callable[[Mapping[str, Any], str], None],
        withdraw: Callable[[Attempt], object],
        save_log: Callable[[Attempt], Awaitable[None]],
    ) -> None:
        self._cluster = cluster
        self._owner = names.label_value(owner)
        self._endings = endings
        self._background = background
        self._on_pod = on_pod
        self._withdraw = withdraw
        self._save_log = save_log
        self._told: dict[tuple[str, str], float] = {}
        """(queue, kind) -> when it was told last."""
        self._again: dict[Attempt, float] = {}
        """When to try once more to end an attempt."""

    def act(self, attempt: Attempt, wait: wait_rules.Wait, *, now_s: float) -> None:
        """The deadline of a wait has come, now or a while ago."""
        if wait.rule.action == "wait":
            self._tell(attempt, wait, now_s)
        elif not attempt.is_given_up and self._again.get(attempt, 0.0) <= now_s:
            if attempt.stage == "waiting" and not attempt.is_in_doubt:
                self._end(attempt, wait)
            elif attempt.stage in ("waiting", "created"):
                attempt.is_given_up = True
                self._background.spawn(self._give_up(attempt, wait, now_s))

    def _tell(self, attempt: Attempt, wait: wait_rules.Wait, now_s: float) -> None:
        key = (attempt.queue, wait.kind)
        if now_s - self._told.get(key, -TELL_AGAIN_S) < TELL_AGAIN_S:
            return
        self._told[key] = now_s
        logger.warning(
            "waits too long and goes on attempt_id=%s queue=%s wait=%s seconds=%.0f reason=%s: %s",
            *(attempt.message.id, attempt.queue, wait.kind, now_s - wait.since_s, wait.reason, wait.detail),
        )

    def _end(self, attempt: Attempt, wait: wait_rules.Wait) -> None:
        self._withdraw(attempt)
        self._endings.too_late(attempt, result_reader.diagnosed(result_reader.too_late(attempt, wait)))

    async def _give_up(self, attempt: Attempt, wait: wait_rules.Wait, now_s: float) -> None:
        try:
            if await self._is_without_pod(attempt, wait):
                self._again.pop(attempt, None)
            else:
                self._again[attempt] = now_s + AGAIN_S
        except (errors.ApiError, errors.ApiUnavailable) as error:
            self._again[attempt] = now_s + AGAIN_S
            logger.info("not ended at its deadline yet attempt_id=%s: %s", attempt.message.id, error)
        finally:
            attempt.is_given_up = False
        self._again = {one: due_s for one, due_s in self._again.items() if one.stage != "ended"}

    async def _is_without_pod(self, attempt: Attempt, wait: wait_rules.Wait) -> bool:
        """End an attempt if its pod is not there, or goes unstarted; says whether it did."""
        pod = await self._read(attempt)
        if attempt.stage not in ("waiting", "created"):
            return False  # it moved on while we asked
        if attempt.stage == "waiting":
            if pod is None:
                self._end(attempt, wait)
                return True
            return False  # a create without an answer had made it: the launcher finds it under its name
        failure = result_reader.too_late(attempt, wait)
        if pod is not None and builder.owner_of(pod) != self._owner:
            self._endings.missed(attempt)  # another dispatcher has taken it over: it is that one's to end
            return False
        if pod is not None:
            if not self._is_unstarted(attempt, pod):
                logger.info("goes on at its deadline, its pod has started attempt_id=%s", attempt.message.id)
                self._on_pod(pod, "MODIFIED")
                return False
            failure = await result_reader.explained(self._cluster, attempt, failure)
            await self._saved(attempt)
            if not await self._goes(attempt, pod):
                return False
        attempt.is_pod_gone = True
        self._endings.too_late(attempt, failure)
        return True

    async def _read(self, attempt: Attempt) -> Mapping[str, Any] | None:
        """The pod of an attempt; None where there is none, or another one of its name."""
        try:
            pod = await self._cluster.read_pod(attempt.namespace, attempt.pod)
        except errors.ApiError as error:
            if error.status == 404:
                return None
            raise
        is_ours = builder.key_of(pod) == attempt.key and attempt.uid in (None, pod["metadata"]["uid"])
        return pod if is_ours else None

    def _is_unstarted(self, attempt: Attempt, pod: Mapping[str, Any]) -> bool:
        seen = current_wait.patient(attempt, observation.observe(pod, base=builder.base_of(pod)))
        return seen.verdict == "none" and seen.started_at is None

    async def _saved(self, attempt: Attempt) -> None:
        """Init containers may have printed something."""
        try:
            await self._save_log(attempt)
        except (errors.ApiError, errors.ApiUnavailable, OSError) as error:
            logger.info("its log was not saved attempt_id=%s: %s", attempt.message.id, error)

    async def _goes(self, attempt: Attempt, pod: Mapping[str, Any]) -> bool:
        """Have the server delete the pod as it was read. Until it has answered, what the watch says is held back."""
        if attempt.stage != "created" or attempt.started_at is not None:
            return False
        self._endings.hold(attempt)
        is_gone = False
        try:
            is_gone = await self._cluster.delete_unchanged(pod)
        finally:
            if not is_gone:
                self._endings.release(attempt)
        return is_gone
