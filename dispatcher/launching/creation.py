"""One launch, step by step: claimed, created, or adopted where its pod is there already; and what an error leads to.

Step ⑤ of the flow. What follows from an answer of the result backend stands in `protocol.launch_claim`, what follows
from an error of the API server in `create_errors`. On the loop's thread.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from dispatcher import errors
from dispatcher.admission.admission import Admission
from dispatcher.admission.holdoff import EVERYWHERE
from dispatcher.attempts import endings, sightings, states
from dispatcher.attempts.attempt import Attempt, Closed
from dispatcher.attempts.limits import BlockedReason
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.seen_pods import SeenPods
from dispatcher.kubeapi import client
from dispatcher.launching import create_errors
from dispatcher.launching.launch_guard import LaunchGuard
from dispatcher.manifests import labels, message_secret, names, quota_resources, workload
from dispatcher.protocol.launch_claim import Step

logger = logging.getLogger(__name__)

NAME_AGAIN_S = 0.5
DOUBT_AGAIN_S = 2.0
FAULT_AGAIN_S = 5.0
"""How long a launch waits that failed for a reason that nobody foresaw."""
_IN_DOUBT = frozenset({408, 504})
"""Answers that leave open whether the pod was made, as no answer does."""

Failure = errors.ApiError | errors.ApiUnavailable


class Creation:
    """Launches attempts whose turn has come, each once it is called."""

    def __init__(
        self,
        kube: client.KubeClient,
        *,
        owner: str,
        attempts: Attempts,
        admission: Admission,
        guard: LaunchGuard,
        seen_pods: SeenPods,
    ) -> None:
        self._client = kube
        self._owner = names.label_value(owner)
        self._attempts = attempts
        self._admission = admission
        self._guard = guard
        self._seen_pods = seen_pods
        self.is_closing = False
        """No create is sent any more."""

    async def launch(self, attempt: Attempt, sends: asyncio.Semaphore) -> None:
        """Brings an attempt that is `LAUNCHING` to whatever comes next; `sends` bounds calls to the API server.

        An exception that nobody foresaw parks this attempt, and no other one.
        """
        try:
            await self._launch(attempt, sends)
        except (errors.ApiError, errors.ApiUnavailable) as error:
            self._park(attempt, error, begun_mono_s=time.monotonic())
        except Exception as error:
            logger.exception("a launch failed attempt_id=%s pod=%s", attempt.id, attempt.pod.name)
            self._wait(
                attempt,
                BlockedReason("LaunchFault", f"{type(error).__name__}: {error}"),
                FAULT_AGAIN_S,
                is_in_doubt=True,
            )
        finally:
            # A pod that may exist counts against the limits, else they would be exceeded by those nobody has seen yet.
            keeps_slot = attempt.launch.is_in_doubt and attempt.state in states.UNLAUNCHED
            self._admission.answered(attempt, keeps_slot=keeps_slot or attempt.state in states.LIVE)

    async def _launch(self, attempt: Attempt, sends: asyncio.Semaphore) -> None:
        # A plain `revoke()` only adds to Celery's set of revoked ids and calls
        # no pool: so that is looked at before a create.
        if self._guard.is_revoked(attempt):
            await self._withdraw(attempt)
            return
        # Asked before the turn at the API server, so that a slow result backend keeps no other create waiting; and
        # again where the turn came so late that somebody else may take the claim for abandoned.
        step = await self._guard.ask(attempt)
        async with sends:
            if not self._guard.is_fresh(attempt):
                step = await self._guard.ask(attempt)
            if self.is_closing:
                return  # its message is not acknowledged and comes again, to whoever consumes then
            # Once more: the turn at the API server may have come minutes after the first look.
            if step.action == "create" and self._guard.is_revoked(attempt):
                await self._withdraw(attempt)
                return
            await self._do(attempt, step)

    async def _withdraw(self, attempt: Attempt) -> None:
        """It was revoked, or has expired, before it had a pod. Where a create may have worked, its pod is looked for
        first: one that is there runs, and is ended by Celery as any other where that was asked for."""
        pod = await self._pod_in_doubt(attempt) if attempt.launch.may_have_pod else None
        if pod is not None:
            await self._take_if_ours(attempt, pod)
            return
        await self._guard.give_up(attempt)
        self._attempts.close(attempt, Closed.WITHDRAWN, endings.revoked(attempt))

    async def _pod_in_doubt(self, attempt: Attempt) -> Mapping[str, Any] | None:
        """The pod that a create without an answer may have made; None where it made none."""
        pod = await self._client.find_pod(attempt.namespace, attempt.pod.name)
        return pod if pod is not None and labels.key_of(pod) == attempt.key else None

    async def _do(self, attempt: Attempt, step: Step) -> None:
        """What the result backend says to it."""
        if step.action == "create" and self._is_lost_sight_of(attempt):
            step = await self._guard.lose(attempt)
        elif step.action == "create" and attempt.message.pod_end is not None:
            # The table of pods says that it ran and its outcome is gone (B23):
            # a pod that was kept still tells it, and no second body runs.
            step = Step("look", "EndedBefore")
        match step.action:
            case "create":
                await self._send(attempt)
            case "look":
                # Somebody asked for its pod: it counts against the limits until it is known not to be there.
                self._attempts.prepare(attempt, replace(attempt.launch, is_in_doubt=True))
                await self._adopt(attempt, begun_mono_s=time.monotonic(), is_claimed_before=True)
            case "report":
                logger.warning("pod lost attempt_id=%s pod=%s owner=%s", attempt.id, attempt.pod.name, step.owner)
                self._attempts.end(attempt, endings.lost(attempt, step.owner))
            case "drop":
                self._drop(attempt, step.reason)
            case _:
                text = f"{step.owner or 'another dispatcher'} has asked for its pod, and may be at it still"
                self._wait(attempt, BlockedReason("LaunchInDoubt", text), DOUBT_AGAIN_S)

    def _drop(self, attempt: Attempt, reason: str) -> None:
        """A delivery of what is done with, or another's: no second run, and no second result."""
        logger.info("delivery dropped attempt_id=%s reason=%s", attempt.id, reason)
        self._attempts.close(attempt, Closed.DROPPED, endings.revoked(attempt) if reason == "Blocked" else None)

    def _is_lost_sight_of(self, attempt: Attempt) -> bool:
        """Whether a pod of it may have come and gone unseen: a create may have worked, and the watch has a gap since.

        A watch without a gap shows every pod. A list shows none of those that were gone before it.
        """
        doubted_mono_s = attempt.launch.doubted_mono_s
        if doubted_mono_s is None or attempt.pod.uid is not None:
            return False
        return self._seen_pods.listed_mono_s(attempt.namespace) > doubted_mono_s

    async def _send(self, attempt: Attempt) -> None:
        begun_mono_s = time.monotonic()
        self._attempts.owned(attempt, begun_mono_s)
        # Before the request: where that is cancelled, a stop must not take back the claim of a pod that may exist.
        self._guard.sent(attempt)
        try:
            with self._doubted_if_interrupted(attempt):
                pod = await self._client.create_pod(attempt.namespace, attempt.launch.manifest)
        except (errors.ApiError, errors.ApiUnavailable) as error:
            # "Already exists" refuses nothing: there is a pod of this launch, so the claim stands.
            if not create_errors.may_have_worked(error) and create_errors.react(error).action != "adopt":
                await self._guard.refused(attempt)
            await self._after_error(attempt, error, begun_mono_s=begun_mono_s)
        else:
            with self._doubted_if_interrupted(attempt):
                await self._created(attempt, pod)

    @contextlib.contextmanager
    def _doubted_if_interrupted(self, attempt: Attempt) -> Iterator[None]:
        """What is cancelled, or fails as nobody foresaw, leaves open what the server did, as no answer does."""
        # From before the call: at any time from then on its pod may have been made, and may have gone.
        begun_mono_s = time.monotonic()
        try:
            yield
        except (errors.ApiError, errors.ApiUnavailable):
            raise
        except BaseException:
            self._doubt(attempt, since_mono_s=begun_mono_s)
            raise

    def _doubt(self, attempt: Attempt, *, since_mono_s: float) -> None:
        """There may be a pod of it that nobody has seen yet, from that time on at the earliest."""
        # The first one counts: a gap of the watch after it may hide that pod, whatever later creates were answered.
        since_mono_s = attempt.launch.doubted_mono_s or since_mono_s
        self._attempts.prepare(attempt, replace(attempt.launch, is_in_doubt=True, doubted_mono_s=since_mono_s))

    async def _created(self, attempt: Attempt, pod: Mapping[str, Any]) -> None:
        """The pod exists. One whose message is in a Secret waits for it, and counts as created when it is there."""
        uid = sightings.uid_of(pod)
        # Before any await: from here on an older pod of the same name is distinguished from this one.
        if attempt.pod.uid is None:
            self._attempts.name_pod(attempt, replace(attempt.pod, uid=uid))
        if attempt.state is states.State.LAUNCHING:
            # Before the Secret is put: its pod is there and has its slot, whatever becomes of the Secret.
            self._admission.created(attempt, uid=uid, now_mono_s=time.monotonic())
            if attempt.launch.has_secret:
                begun_mono_s = time.monotonic()
                try:
                    # After its pod: the Secret names the pod's uid as its owner,
                    # so that the garbage collector removes it with the pod.
                    text, files = attempt.message.encode(), workload.files(attempt.message)
                    await self._client.put_secret(message_secret.secret(pod, text, files=files))
                except (errors.ApiError, errors.ApiUnavailable) as error:
                    await self._after_error(attempt, error, begun_mono_s=begun_mono_s)
                    return
        # Also where the events were faster: a create has worked, which ends a pause and a row of failures.
        self._admission.holdoff.worked(attempt.namespace, now_mono_s=time.monotonic())
        if attempt.state is states.State.LAUNCHING:  # else the pod's events were faster than the answer to its create
            made = replace(attempt.pod, created_at=datetime.now(UTC), created_mono_s=time.monotonic())
            self._attempts.launched(attempt, made)

    async def _after_error(self, attempt: Attempt, error: Failure, *, begun_mono_s: float) -> None:
        if attempt.state is not states.State.LAUNCHING:
            return  # the create had worked: the pod's events were faster than the failure
        # First: whatever follows, a create that may have worked is remembered until its pod was looked for.
        if create_errors.may_have_worked(error):
            self._doubt(attempt, since_mono_s=begun_mono_s)
        reaction = create_errors.react(error)
        if reaction.action == "adopt":
            await self._adopt(attempt, begun_mono_s=begun_mono_s)
        elif reaction.action in ("wait", "stop"):
            self._park(attempt, error, begun_mono_s=begun_mono_s)
        elif attempt.launch.may_have_pod and (pod := await self._pod_in_doubt(attempt)) is not None:
            await self._take_if_ours(attempt, pod)  # a create before had worked: what is refused now runs
        else:
            self._attempts.end(attempt, endings.refused(attempt, error, reason=reaction.reason))

    async def _adopt(self, attempt: Attempt, *, begun_mono_s: float, is_claimed_before: bool = False) -> None:
        """A pod of this name is there, or was asked for. It is ours if it says so, and not if it is about to leave."""
        try:
            pod = await self._client.read_pod(attempt.namespace, attempt.pod.name)
        except (errors.ApiError, errors.ApiUnavailable) as error:
            # No pod under a claim: the claim's age decides. Without a claim a 404 after
            # "already exists" is a pod that has just gone, and the create is repeated.
            if is_claimed_before and isinstance(error, errors.ApiError) and error.status == 404:
                await self._do(attempt, await self._guard.without_pod(attempt))
            else:
                self._attempts.prepare(attempt, replace(attempt.launch, is_in_doubt=True))
                self._park(attempt, error, begun_mono_s=begun_mono_s, reason="Conflict")
            return
        await self._take_if_ours(attempt, pod)

    async def _take_if_ours(self, attempt: Attempt, pod: Mapping[str, Any]) -> None:
        """A pod of this name is there.

        In this order: a pod of somebody else's is never touched; one that is leaving is waited for, whoever had it,
        since its name is needed; only then its owner counts.
        """
        if labels.key_of(pod) != attempt.key:
            self._attempts.end(attempt, endings.refused(attempt, _name_taken(attempt)))
        elif pod["metadata"].get("deletionTimestamp") or self._seen_pods.is_requeued(sightings.uid_of(pod)):
            text = f"the pod {attempt.pod.name} of an earlier delivery is not gone yet"
            self._wait(attempt, BlockedReason("PodLeaving", text), NAME_AGAIN_S)
        elif self._is_anothers(attempt, pod):
            self._drop(attempt, "Adopted")
        else:
            await self._take(attempt, pod)

    def _is_anothers(self, attempt: Attempt, pod: Mapping[str, Any]) -> bool:
        """Whether a pod's outcome is stored already, or another dispatcher has it, or has had it: an orphan soon."""
        is_finished = self._seen_pods.is_closed(sightings.uid_of(pod)) or labels.is_done(pod)
        if is_finished and attempt.message.pod_end is not None:
            return False  # a kept one, whose outcome was stored and has got lost: it says once more what that was
        return is_finished or labels.owner_of(pod) != self._owner

    async def _take(self, attempt: Attempt, pod: Mapping[str, Any]) -> None:
        logger.info("pod adopted attempt_id=%s pod=%s", attempt.id, attempt.pod.name)
        with self._doubted_if_interrupted(attempt):
            await self._created(attempt, pod)
        if attempt.state in states.LIVE:  # what it says already may have been seen before we had its name
            self._attempts.observed(attempt, pod, now_mono_s=time.monotonic())

    def _wait(self, attempt: Attempt, blocked: BlockedReason, after_s: float, *, is_in_doubt: bool = False) -> None:
        """This attempt alone is tried again in a moment."""
        launch = replace(attempt.launch, is_in_doubt=attempt.launch.is_in_doubt or is_in_doubt)
        if attempt.state is states.State.LAUNCHING and self._attempts.park(attempt, blocked, launch):
            self._admission.park(attempt, until_mono_s=time.monotonic() + after_s)

    def _park(self, attempt: Attempt, error: Failure, *, begun_mono_s: float, reason: str | None = None) -> None:
        """Puts it back into its place: after a while of its own, or while its namespace, or all, are held off."""
        if attempt.state is not states.State.LAUNCHING:
            return
        reaction = create_errors.react(error)
        blocked, now_mono_s = BlockedReason(reason or reaction.reason, str(error)), time.monotonic()
        # A reason of ours (`Conflict`) comes from reading the pod: that answer says nothing of the create before.
        is_answered = reason is None and isinstance(error, errors.ApiError)
        launch = replace(
            attempt.launch,
            failures=attempt.launch.failures + 1,
            is_in_doubt=_may_count(error) or (attempt.launch.is_in_doubt and not is_answered),
        )
        self._attempts.park(attempt, blocked, launch)
        # A quota that names resources refuses only pods that ask for the same: the rest of the namespace goes on.
        resources, is_too_large = quota_resources.exhausted(str(error))
        if blocked.reason == "QuotaExceeded" and resources:
            # It asks for more than the whole quota has: no other pod's end makes room for it.
            if is_too_large:
                self._attempts.end(attempt, endings.refused(attempt, error, reason="LargerThanQuota"))
                return
            self._admission.quotas.refused(attempt, resources, str(error))
            self._admission.park(attempt, until_mono_s=now_mono_s + self._alone_s(launch.failures, error))
            return
        # A quota, a webhook, a role are a namespace's; credentials and the server's own limits are everybody's.
        scope = EVERYWHERE if reaction.action == "stop" else attempt.namespace
        self._admission.park(
            attempt, until_mono_s=self._held_off(attempt, scope, blocked, error, begun_mono_s=begun_mono_s)
        )

    def _alone_s(self, failures: int, error: Failure) -> float:
        return create_errors.backoff_s(failures, error, jitter=random.random())

    def _held_off(
        self, attempt: Attempt, scope: str, blocked: BlockedReason, error: Failure, *, begun_mono_s: float
    ) -> float | None:
        """Until when it waits by itself; None where its scope is held off instead."""
        now_mono_s, jitter, holdoff = time.monotonic(), random.random(), self._admission.holdoff
        wanted_s = getattr(error, "retry_after_s", None) or 0.0
        alone_s = holdoff.alone_s(
            scope, blocked, failures=attempt.launch.failures, now_mono_s=now_mono_s, wanted_s=wanted_s, jitter=jitter
        )
        if alone_s is not None:
            return now_mono_s + alone_s
        paused_s = holdoff.pause(
            scope, blocked, begun_mono_s=begun_mono_s, now_mono_s=now_mono_s, wanted_s=wanted_s, jitter=jitter
        )
        if paused_s is not None:
            logger.warning(
                "launching paused namespace=%s reason=%s seconds=%.1f: %s",
                *(scope or "(all)", blocked.reason, paused_s, error),
            )
        return None


def _may_count(error: Failure) -> bool:
    """Whether a pod that may have been made keeps its slot. Of a server that answers and says no it gives it back: what
    keeps one namespace from creating must not take the slots of others."""
    return error.was_sent if isinstance(error, errors.ApiUnavailable) else error.status in _IN_DOUBT


def _name_taken(attempt: Attempt) -> errors.PodFailed:
    return errors.PodFailed(
        f"a pod named {attempt.pod.name} is in the namespace {attempt.namespace} and not of this task; delete it",
        {"reason": "NameTaken", "cause": "infrastructure", "pod": attempt.pod.name},
    )
