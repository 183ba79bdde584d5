"""The cluster's side of a dispatcher: connects, keeps its loops running, and does what Celery's side commands.

The attempts outlive a connection: where the loops end for a reason that nobody foresaw they are begun anew, and what
was under way is looked at again. After several such ends in a short time the process ends. On the loop's thread.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from dispatcher import errors, retry
from dispatcher.attempts import endings, sightings, states
from dispatcher.attempts.attempt import Attempt, Closed, Pod
from dispatcher.attempts.celery_side import (
    Adopt,
    Broken,
    CelerySide,
    Clean,
    Close,
    Command,
    ConfirmOwner,
    Dropped,
    Owned,
    Questions,
    Released,
    Requeue,
    SetLimit,
    Submit,
    Terminate,
)
from dispatcher.attempts.limits import BlockedReason
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.states import State
from dispatcher.attempts.status_writer import StatusWriter
from dispatcher.background import Background
from dispatcher.finishing import cleanup, log_page
from dispatcher.kubeapi import access_review, client
from dispatcher.kubeapi.connect import Connection
from dispatcher.launching.claim_client import Claims, ClaimStore
from dispatcher.manifests import labels
from dispatcher.options import Options
from dispatcher.watching import wiring
from dispatcher.watching.reconciler import Reconciler
from dispatcher.watching.wiring import Parts

logger = logging.getLogger(__name__)

TICK_S = 0.5
NAMESPACES_S = 300.0
"""How often the whole cluster is listed for namespaces that hold pods of ours, where tasks may choose any."""
SELDOM = retry.Backoff(first_s=2.0, last_s=NAMESPACES_S)
_API_ERRORS = (errors.ApiError, errors.ApiUnavailable)
RELEASE_S = 1.0
"""How long a stop tries to take back claims."""
AGAIN_S = 2.0
FAULTS = 5
FAULTS_WITHIN_S = 120.0
"""After so many unforeseen ends of the loops in so short a time the process ends: whoever supervises it begins anew."""


class Controller:
    """All attempts of one dispatcher."""

    def __init__(
        self,
        options: Options,
        *,
        owner: str,
        limit: int,
        celery: CelerySide,
        questions: Questions,
        claim_store: ClaimStore | None,
    ) -> None:
        attempts, background = Attempts(), Background()
        self._shared = wiring.Shared(
            options=options,
            owner=owner,
            attempts=attempts,
            celery=celery,
            questions=questions,
            claims=Claims(claim_store, owner=owner) if claim_store is not None else None,
            background=background,
        )
        self._limit = limit
        self._attempts = attempts
        self._background = background
        self._celery = celery
        self._connection = Connection(options)
        self._status = StatusWriter(options, owner=owner, attempts=attempts, celery=celery)
        self._reconciler = Reconciler(attempts, status=self._status, celery=celery)
        self._parts: Parts | None = None
        self._unanswered: dict[tuple[type[Command], str], Command] = {}
        """(kind, delivery) -> what Celery's side waits for, or what has to wait for the API server."""
        self._missing: list[str] = []
        """Permissions that we do not have."""

    async def run(self) -> None:
        """Connects, waiting for the API server as long as it takes, and works until it is cancelled."""
        loop = asyncio.get_running_loop()
        # It outlives the loops that are begun anew: rows, and the events behind them, must not be lost with those.
        writer = loop.create_task(self._status.run())
        faults: list[float] = []
        try:
            while True:
                try:
                    await self._work()
                except Exception as error:
                    logger.exception("the loops of the cluster's side failed and are started again")
                    now_mono_s = time.monotonic()
                    # Counted within a window: one unforeseen end a day is borne for ever, a fault in a circle is not.
                    faults = [at for at in faults if now_mono_s - at < FAULTS_WITHIN_S] + [now_mono_s]
                    if len(faults) >= FAULTS:
                        self._celery.post(Broken(why=f"{type(error).__name__}: {error}"))
                        # `Broken` has the worker shut down, which then stops
                        # this thread: until that nothing more is tried.
                        await asyncio.get_running_loop().create_future()
                await asyncio.sleep(AGAIN_S)
        finally:
            # Cancelled last: what the loops have said until their end is written once more.
            writer.cancel()
            await asyncio.wait([writer])

    async def _work(self) -> None:
        """One connection to the API server, from the first try until it is cancelled or something breaks."""
        try:
            async with asyncio.TaskGroup() as loops:
                # Commands and deadlines are served while the API server is
                # still waited for: only `_connected` needs it.
                for loop in (self._reconciler.run(), self._follow_commands(), self._tick(), self._connected()):
                    loops.create_task(loop)
        except* Exception as broken:
            # A TaskGroup cancels the others at the first failure: the first is the one that says why.
            raise broken.exceptions[0] from broken

    async def _connected(self) -> None:
        async with client.KubeClient(await self._connection.access()) as kube:
            await self._connection.answers(kube)
            parts = wiring.wire(kube, self._shared, limit=self._limit)
            self._begin(parts)
            try:
                async with asyncio.TaskGroup() as loops:
                    for loop in self._loops(parts):
                        loops.create_task(loop)
            finally:
                # First: a command that comes during the stop must find no launcher that would begin a launch.
                self._parts = self._reconciler.executors = None
                await self._shut_down(parts)
                # What still uses the client ends before the client is closed.
                await self._background.cancel()

    def _begin(self, parts: Parts) -> None:
        options = self._shared.options
        for namespace in (*options.namespaces, *options.policy.plain_namespaces):
            parts.watcher.watch(namespace)
        self._parts, self._reconciler.executors = parts, parts.executors
        for attempt in self._attempts:
            self._resume(attempt, parts)
        # Taken out first: a command that has to wait once more puts itself back.
        unanswered, self._unanswered = self._unanswered, {}
        for command in unanswered.values():
            self._handle(command)

    def _resume(self, attempt: Attempt, parts: Parts) -> None:
        """An attempt that was here before the API server answered, or before the loops were begun anew."""
        # Its task was cancelled with the loops, perhaps within a create: as one without an answer.
        if attempt.state is State.LAUNCHING:
            blocked = BlockedReason("LaunchInDoubt", "its launch was interrupted")
            self._attempts.park(attempt, blocked, replace(attempt.launch, is_in_doubt=True))
        # The admission that knew until when it waits is gone with its connection.
        if attempt.state is State.PARKED:
            self._attempts.queue(attempt)
        # The calls of `deadlines` were cancelled; its wait is expired still and leads there again.
        if attempt.state in (State.EXPIRING_LAUNCH, State.EXPIRING_POD):
            self._attempts.resume(attempt)
        if attempt.state is State.QUEUED:
            self._launch(attempt, parts)
        elif attempt.state is State.ENDED and attempt.ending is not None and attempt.ending.result is None:
            parts.executors.completion.read_again(attempt)
        elif attempt.state in states.LIVE:
            # It may be in a namespace that only a pattern of the policy allows, which nobody else would watch.
            parts.watcher.watch(attempt.namespace)

    def _loops(self, parts: Parts) -> Iterator[Coroutine[Any, Any, None]]:
        """The loops that look at the world by themselves."""
        yield self._check_permissions(parts.kube)
        yield self._find_namespaces(parts)
        yield parts.capacity.run()
        yield parts.launcher.run()
        yield parts.takeover.run()
        yield parts.resync.run()
        yield parts.watcher.run()
        if parts.lost_pods is not None:
            yield parts.lost_pods.run()
        if self._shared.claims is not None:
            yield self._shared.claims.run()

    async def _shut_down(self, parts: Parts) -> None:
        """The end: no more creates, those under way are waited for, and what was not sent is claimed no longer."""
        # Creates before claims: one that is answered now must keep its claim. Slots last: until then pods may be made.
        await parts.launcher.close()
        if self._shared.claims is not None:
            with contextlib.suppress(TimeoutError):
                # Bounded: a claim that stands costs the task an attempt at
                # worst, a stop that hangs is killed by its supervisor.
                await asyncio.wait_for(self._shared.claims.close(), RELEASE_S)
        await parts.capacity.leave()

    async def _follow_commands(self) -> None:
        while True:
            for command in await self._celery.commands():
                try:
                    self._handle(command)
                except Exception:
                    logger.exception("a command failed command=%s", type(command).__name__)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._reconciler.look_at_all()

    async def _check_permissions(self, kube: client.KubeClient) -> None:
        async for one in retry.Tries(errors.ApiUnavailable, backoff=SELDOM):
            with one:
                self._missing = await access_review.missing(kube, namespaces=self._shared.options.namespaces)
            if one.error is not None:
                logger.info("permissions were not checked, they will be again: %s", one.error)
        if self._missing:
            logger.error("permissions are missing, tasks will fail or wait: %s", "; ".join(self._missing))

    async def _find_namespaces(self, parts: Parts) -> None:
        """Where tasks may choose any namespace, those that hold pods of ours are found by a list of the cluster.

        Now and then: another dispatcher may have used one that nobody here has, and be gone since.
        """
        options = self._shared.options
        if not options.policy.has_namespace_patterns:
            return
        async for one in retry.Tries(_API_ERRORS, backoff=SELDOM, is_endless=True):
            with one:
                # Of the whole deployment, not only ours: orphans of a dispatcher that is gone are to be seen, too.
                found = await parts.kube.list_pods(None, selector=labels.selector(deployment=options.deployment))
                for namespace in {pod["metadata"]["namespace"] for pod in found.pods}:
                    parts.watcher.watch(namespace)
                await asyncio.sleep(NAMESPACES_S)
            if one.failures == 1:
                logger.warning("namespaces with pods of this deployment were not looked for: %s", one.error)

    async def server_answers(self) -> None:
        """Returns if the API server answers; raises what keeps us from it."""
        await self._connection.check()
        if self._parts is not None:
            await self._parts.kube.read_version()

    async def log_page(self, attempt_id: str, offset: int) -> log_page.Page | None:
        """A piece of an attempt's log: of its pod, or as it was saved; None where nothing of it is here."""
        attempt = next((one for one in self._attempts if one.id == attempt_id), None)
        # An offset comes from a page of a saved file; the log of a pod that runs has no stable one.
        if attempt is None or self._parts is None or offset:
            return await log_page.of_file(self._shared.options.log_folder, attempt_id, offset=offset)
        return await log_page.of_attempt(self._parts.kube, attempt)

    # Commands

    def _handle(self, command: Command) -> None:
        match command:
            case Submit():
                self._submit(command.attempt)
            case Adopt():
                self._adopt(command.attempt, command)
            case Clean():
                self._clean(command)
            case SetLimit():
                self._limit = command.limit
                if self._parts is not None:
                    self._parts.capacity.admission.own_limit = command.limit
                    self._parts.capacity.room.set()
            case Requeue() | ConfirmOwner():
                self._unanswered[(type(command), command.delivery)] = command
                # Not awaited: it may take as long as the API server or the
                # result backend is away, and other commands follow.
                self._background.spawn(self._answer(command))
            case Terminate() | Close():
                attempt = self._attempts.of_delivery(command.delivery)
                if attempt is None:
                    return
                if isinstance(command, Close):
                    self._close(attempt, is_success=command.is_success)
                else:
                    self._terminate(attempt)

    async def _answer(self, command: Requeue | ConfirmOwner) -> None:
        """Carries out what takes calls. Where the loops end meanwhile it begins anew with them: Celery's side waits."""
        attempt = self._attempts.of_delivery(command.delivery)
        if isinstance(command, Requeue):
            if attempt is not None:
                await self._requeue(attempt)
        elif attempt is None:
            await self._confirm_withdrawn(command)
        else:
            await self._confirm_owner(attempt)
        self._unanswered.pop((type(command), command.delivery), None)

    def _submit(self, attempt: Attempt) -> None:
        # B5: the first delivery goes on. Both have one pod name, so that the
        # second would only meet the first one's pod.
        if not self._attempts.add(attempt):
            logger.info("delivered twice, runs once attempt_id=%s", attempt.id)
            self._celery.post(Dropped(delivery=attempt.delivery, pod=""))
        elif self._parts is None:
            trouble = self._connection.trouble or "the API server has not answered yet"
            self._attempts.block(attempt, BlockedReason("ApiServerUnavailable", trouble))
        else:
            self._launch(attempt, self._parts)

    def _launch(self, attempt: Attempt, parts: Parts) -> None:
        parts.launcher.submit(attempt)
        # Only after the manifest is built is its namespace known; empty where it could not be built.
        if attempt.namespace:
            parts.watcher.watch(attempt.namespace)

    def _adopt(self, attempt: Attempt, command: Adopt) -> None:
        """Takes an attempt back whose pod was found in the cluster."""
        parts, pod = self._parts, command.pod
        # Dropped, not lost: the pod is listed again, and found again where it is still nobody's.
        if parts is None or not self._attempts.add(attempt):
            self._celery.post(Dropped(delivery=attempt.delivery, pod=pod["metadata"]["name"]))
            return
        metadata, now, now_mono_s = pod["metadata"], datetime.now(UTC), time.monotonic()
        made_at = sightings.time_of(metadata.get("creationTimestamp")) or now
        # As old as the last list, not as of now: the event that showed it may have waited through a stall (D11).
        self._attempts.owned(attempt, parts.seen_pods.listed_mono_s(metadata["namespace"]))
        # Celery's side has accepted it already, when it rebuilt the request (`Deliveries._adopt`).
        self._attempts.reported(attempt, launched=True)
        found = Pod(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            created_at=now,
            # Deadlines go on from when the pod was made; never from later than
            # now, for the API server's clock may be ahead.
            created_mono_s=now_mono_s - max(0.0, (now - made_at).total_seconds()),
        )
        self._attempts.launched(attempt, found)
        logger.info("pod adopted attempt_id=%s pod=%s", attempt.id, found.name)
        parts.capacity.see(pod, "ADDED")
        self._attempts.observed(attempt, pod, "ADDED", now_mono_s=now_mono_s)

    def _terminate(self, attempt: Attempt) -> None:
        """Ends an attempt because Celery says so (revoke, time limit); Celery has stored the result itself."""
        parts = self._parts
        if attempt.state in (State.QUEUED, State.PARKED, State.EXPIRING_LAUNCH):
            if attempt.launch.may_have_pod:
                return  # as one that is being launched: when its turn comes its pod is looked for, then it is withdrawn
            if parts is not None:
                parts.capacity.admission.withdraw(attempt)
            self._attempts.close(attempt, Closed.WITHDRAWN, endings.revoked(attempt))
        elif attempt.state in states.LIVE and parts is None:
            # A pod that cannot be deleted now must not be forgotten: it would run on though its task says REVOKED.
            self._unanswered[(Terminate, attempt.delivery)] = Terminate(delivery=attempt.delivery)
        elif attempt.state in states.LIVE and parts is not None:
            # Closed before the delete: what the pod says on its way out is no
            # news, and its slot counts until it is gone.
            self._attempts.close(attempt, Closed.TERMINATED, endings.revoked(attempt))
            self._forget_pod(attempt, parts)
            parts.cleanup.kill(cleanup.ended_attempt(attempt, is_success=False))
            self._celery.post(Released(delivery=attempt.delivery))
        # being launched: the revocation is remembered by Celery, and comes again with `Launched`

    def _close(self, attempt: Attempt, *, is_success: bool) -> None:
        """The outcome is stored. Only now may the pod go."""
        # From here on its row says that its end is reported: nobody looks for its pod once that is gone (P25).
        self._attempts.close(attempt, Closed.STORED)
        if attempt.pod.uid is not None and self._parts is not None:
            self._forget_pod(attempt, self._parts)
            self._parts.cleanup.take(cleanup.ended_attempt(attempt, is_success=is_success))

    def _forget_pod(self, attempt: Attempt, parts: Parts, *, is_requeued: bool = False) -> None:
        parts.seen_pods.close(attempt.pod.uid, attempt.namespace, at_mono_s=time.monotonic(), is_requeued=is_requeued)
        parts.capacity.room.set()

    async def _requeue(self, attempt: Attempt) -> None:
        """Claim and pod go, whatever the policy: the message is requeued, and needs the pod's name again."""
        # The claim before all else: while it stands, whoever gets the message takes its launch for one under way.
        if self._shared.claims is not None and attempt.stores_result:
            await self._shared.claims.release(attempt)
        self._attempts.close(attempt, Closed.STORED)
        # Before the pod is gone: it may take its grace period, and its next launch waits for the name (`PodLeaving`).
        self._celery.post(Released(delivery=attempt.delivery))
        if attempt.pod.uid is not None and self._parts is not None:
            self._forget_pod(attempt, self._parts, is_requeued=True)
            self._parts.cleanup.delete(cleanup.ended_attempt(attempt, is_success=False))

    async def _confirm_owner(self, attempt: Attempt) -> None:
        # The answer holds as of the question: a stall while it is under way is asked about once more.
        asked_mono_s, parts = time.monotonic(), self._parts
        if parts is None or await parts.ownership.is_ours(attempt):
            self._attempts.owned(attempt, asked_mono_s)
            self._celery.post(Owned(delivery=attempt.delivery))
            return
        logger.info("another dispatcher has reported it meanwhile attempt_id=%s pod=%s", attempt.id, attempt.pod.name)
        # `Dropped` is posted here, as the answer: the decision must not send a second one.
        self._attempts.reported(attempt, ended=True)
        self._attempts.close(attempt, Closed.DROPPED)
        self._celery.post(Dropped(delivery=attempt.delivery, pod=attempt.pod.name))
        parts.capacity.room.set()

    async def _confirm_withdrawn(self, command: ConfirmOwner) -> None:
        """It has no pod, and is in flight no longer: it is ours unless an outcome is stored."""
        async for one in retry.Tries(Exception):  # the result backend is another's code, away or not
            with one:
                has_outcome = await asyncio.to_thread(self._shared.questions.has_outcome, command.attempt_id)
            if one.error is not None:
                logger.debug("its outcome cannot be asked for attempt_id=%s: %r", command.attempt_id, one.error)
        self._celery.post(
            Dropped(delivery=command.delivery, pod="") if has_outcome else Owned(delivery=command.delivery)
        )

    def _clean(self, command: Clean) -> None:
        """Cleans up behind a pod whose outcome had been stored by a dispatcher before us."""
        key, parts, pod = labels.key_of(command.pod), self._parts, command.pod
        if parts is not None and key is not None:
            parts.seen_pods.close(sightings.uid_of(pod), pod["metadata"]["namespace"], at_mono_s=time.monotonic())
            parts.cleanup.take(
                cleanup.ended_pod(
                    pod, attempt_id=key.attempt_id, profile=command.profile, is_success=command.is_success
                )
            )

    def stats(self) -> dict[str, Any]:
        """Facts for `inspect stats`. Called on Celery's thread: it only reads, and what it reads is read at once."""
        counts, parts = self._attempts.counts(), self._parts
        watch_trouble = "; ".join(parts.watcher.trouble.values()) if parts else ""
        return {
            "pods-in-flight": counts[State.LAUNCHING] + sum(counts[state] for state in states.LIVE),
            "waiting": counts[State.QUEUED] + counts[State.PARKED] + counts[State.EXPIRING_LAUNCH],
            "ended-not-stored": counts[State.ENDED],
            "api-requests": {" ".join(key): count for key, count in sorted(parts.kube.counts.items())} if parts else {},
            "lists": parts.watcher.relists if parts else 0,
            "events-skipped": parts.watcher.skipped if parts else 0,
            "ends-missed": parts.resync.missed_ends if parts else 0,
            "leftovers": parts.cleanup.leftovers if parts else 0,
            "missing-permissions": list(self._missing),
            "limits": parts.capacity.shared.trouble if parts else None,
            "trouble": self._connection.trouble or watch_trouble or None,
        }
