"""The launcher: takes attempts in, builds their pods and creates them, no faster than limits and the server allow.

Steps ③ to ⑤ of the flow. Which of the waiting attempts may be created is `admission`'s to say; what follows from an
error of the API server stands in one table (`create_errors`): back-pressure parks an attempt in its place, an unusable
manifest fails its own attempt. Runs on the loop's thread.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from dispatcher import errors
from dispatcher.admission.admission import Admission
from dispatcher.admission.holdoff import EVERYWHERE
from dispatcher.attempts.attempt import Attempt, Register
from dispatcher.attempts.limits import Hold
from dispatcher.kubeapi import client
from dispatcher.launching import create_errors
from dispatcher.launching.launch_guard import Permits
from dispatcher.manifests import builder, message_secret, names, workload
from dispatcher.options import Options
from dispatcher.protocol.launch_claim import Step

logger = logging.getLogger(__name__)

CLOSE_S = 2.0
NAME_AGAIN_S = 0.5
DOUBT_AGAIN_S = 2.0
LOOK_S = 1.0
"""How often the reasons of what waits are looked at, and the lines, whatever happened."""
TELL_AGAIN_S = 10.0
TOLD_AGAIN = 100
"""Where a reason stays and only its numbers change, so many of a line are told again, and so seldom."""
_IN_DOUBT = frozenset({408, 504})
"""Answers that leave open whether the pod was made, as no answer does."""

Failure = errors.ApiError | errors.ApiUnavailable


class Launcher:
    """The creates under way, and what comes of them."""

    def __init__(
        self,
        *,
        cluster: client.KubeClient,
        register: Register,
        admission: Admission,
        options: Options,
        owner: str,
        on_created: Callable[[Attempt], None],
        on_refused: Callable[[Attempt, BaseException], None],
        on_changed: Callable[[Attempt], None],
        on_withdrawn: Callable[[Attempt], None],
        is_revoked: Callable[[Attempt], bool],
        is_leaving: Callable[[Mapping[str, Any]], bool],
        on_dropped: Callable[[Attempt, str], None],
        on_lost: Callable[[Attempt, str], None],
        on_seen: Callable[[Mapping[str, Any]], None],
        is_finished: Callable[[Mapping[str, Any]], bool],
        permits: Permits,
        watch: Callable[[str], None],
        listed_mono: Callable[[str], float],
    ) -> None:
        self._cluster = cluster
        self._register = register
        self._admission = admission
        self._options = options
        self._owner = owner
        self._on_created = on_created
        self._on_refused = on_refused
        self._on_changed = on_changed
        self._on_withdrawn = on_withdrawn
        self._is_revoked = is_revoked
        self._is_leaving = is_leaving
        self._on_dropped = on_dropped
        self._on_lost = on_lost
        self._on_seen = on_seen
        self._is_finished = is_finished
        self._permits = permits
        self._watch = watch
        self._listed_mono = listed_mono
        self._creates: set[asyncio.Task[None]] = set()
        self._sends = asyncio.Semaphore(options.create_concurrency)
        """Of the creates under way those that are at the API server: others are being claimed meanwhile."""
        self._is_closing = False
        self._again: asyncio.TimerHandle | None = None
        self._told_at: dict[tuple[str, str], float] = {}
        """(queue, namespace) -> when the numbers of its reason were told last."""

    async def run(self) -> None:
        """Looks at what waits, again and again: no event is needed for it to go on, and its reasons stay true."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                self.pump()
                self._explain_all()
            except Exception:
                logger.exception("the waiting lines could not be looked at")

    def submit(self, attempt: Attempt) -> None:
        """Takes an attempt in. Its manifest is built at once: what cannot be launched fails before it waits."""
        try:
            built = builder.build(
                attempt.message,
                profile=attempt.profile,
                options=self._options,
                owner=self._owner,
                task_wishes=attempt.task_wishes,
                deadline_s=attempt.timeout_s,
            )
        except Exception as error:  # noqa: BLE001 - whatever a template, an override or a value does fails this attempt alone
            self._on_refused(attempt, _as_outcome(error))
            return
        attempt.pod, attempt.namespace = built["metadata"]["name"], built["metadata"]["namespace"]
        attempt.manifest = msgspec.json.encode(built)
        attempt.has_payload = message_secret.name_in(built) is not None
        self._register.move(attempt, "waiting")
        self._admission.lines.add(attempt)
        self.pump()
        if attempt.stage == "waiting":
            self._explain(attempt, self._admission.hold(attempt, time.monotonic()))

    def pump(self) -> None:
        """Starts creates while limits allow. Call it whenever an attempt ended or a limit changed."""
        while not self._is_closing and (attempt := self._admission.take(time.monotonic())) is not None:
            self._begin(attempt)
        self._look_again()

    def pump_soon(self) -> None:
        """The same, once for all that happens in this turn of the loop."""
        self._look_again(0.0)

    async def close(self) -> None:
        """Starts no creates any more, and gives those under way a moment to be answered."""
        self._is_closing = True
        if self._creates:
            await asyncio.wait(self._creates, timeout=CLOSE_S)

    def withdraw(self, attempt: Attempt) -> bool:
        """Takes an attempt out of its queue's waiting line. Says whether it was there."""
        return self._admission.withdraw(attempt)

    def set_limit(self, limit: int) -> None:
        """Changes how many pods this dispatcher may have over all queues."""
        self._admission.own_limit = limit
        self.pump()

    def _begin(self, attempt: Attempt) -> None:
        if attempt.stage != "waiting":
            self._admission.answered(attempt)  # its create had worked, though we saw a failure, and its pod has ended
            return
        if self._is_revoked(attempt):
            self._admission.answered(attempt)
            self._on_withdrawn(attempt)
            return
        self._register.move(attempt, "creating")
        attempt.reason = attempt.detail = None
        task = asyncio.get_running_loop().create_task(self._create_and_answer(attempt))
        self._creates.add(task)
        task.add_done_callback(self._create_done)

    def _create_done(self, task: asyncio.Task[None]) -> None:
        self._creates.discard(task)
        if not task.cancelled():
            self.pump()

    def _look_again(self, in_s: float | None = None) -> None:
        """Sets the one timer for the next pump, by what time alone may change."""
        wanted_s = self._admission.again_in_s(time.monotonic()) if in_s is None else in_s
        if wanted_s is None:
            return
        loop = asyncio.get_running_loop()
        at = loop.time() + wanted_s
        if self._again is not None and loop.time() <= self._again.when() <= at and not self._again.cancelled():
            return
        if self._again is not None:
            self._again.cancel()
        self._again = loop.call_at(at, self._pump_now)

    def _pump_now(self) -> None:
        self._again = None
        self.pump()

    def _explain_all(self) -> None:
        now_s = time.monotonic()
        for line in self._admission.lines:
            hold = self._admission.hold(line[0], now_s)
            if hold is None:
                continue
            name = (line[0].queue, line[0].namespace)
            is_due = now_s - self._told_at.get(name, 0.0) >= TELL_AGAIN_S
            for place, attempt in enumerate(line):
                if attempt.reason != hold.reason or (is_due and place < TOLD_AGAIN and attempt.detail != hold.text):
                    self._explain(attempt, hold)
            if is_due:
                self._told_at[name] = now_s

    def _explain(self, attempt: Attempt, hold: Hold | None) -> None:
        if hold is not None:
            attempt.reason, attempt.detail = hold.reason, hold.text
        self._on_changed(attempt)

    async def _create_and_answer(self, attempt: Attempt) -> None:
        try:
            await self._create(attempt)
        finally:
            self._admission.answered(attempt)

    async def _create(self, attempt: Attempt) -> None:
        step = await self._permits.ask(attempt)
        async with self._sends:
            if not self._permits.is_fresh(attempt):
                step = await self._permits.ask(attempt)  # it waited for its turn
            if self._is_closing:
                return
            if step.action == "create" and self._is_revoked(attempt):
                await self._permits.give_up(attempt)
                self._on_withdrawn(attempt)
                return
            self._register.name_pod(attempt)
            self._watch(attempt.namespace)
            await self._go(attempt, step)

    async def _go(self, attempt: Attempt, step: Step) -> None:
        """What the result backend says to it."""
        if step.action == "create" and self._is_lost_sight_of(attempt):
            step = await self._permits.lose(attempt)
        match step.action:
            case "create":
                await self._send(attempt)
            case "look":
                attempt.is_in_doubt = True
                await self._adopt(attempt, begun_at=time.monotonic(), is_claimed_before=True)
            case "tell":
                self._on_lost(attempt, step.owner)
            case "drop":
                self._on_dropped(attempt, step.reason)
            case _:
                detail = f"{step.owner or 'another dispatcher'} has asked for its pod, and may be at it still"
                self._come_back(attempt, reason="LaunchInDoubt", detail=detail, after_s=DOUBT_AGAIN_S)

    def _is_lost_sight_of(self, attempt: Attempt) -> bool:
        """Whether a pod of it may have come and gone unseen: a create may have worked, and the watch has a gap since.

        A watch without a gap tells of every pod. After a list nobody knows of those that had gone before it.
        """
        if attempt.doubt_mono is None or attempt.uid is not None:
            return False
        return self._listed_mono(attempt.namespace) > attempt.doubt_mono

    async def _send(self, attempt: Attempt) -> None:
        begun_at = attempt.ours_mono = time.monotonic()
        self._permits.sent(attempt)
        try:
            pod = await self._cluster.create_pod(attempt.namespace, attempt.manifest)
        except (errors.ApiError, errors.ApiUnavailable) as error:
            if not create_errors.may_have_worked(error) and create_errors.react(error).action != "adopt":
                await self._permits.refused(attempt)
            await self._after_error(attempt, error, begun_at=begun_at)
        else:
            await self._created(attempt, pod)

    async def _created(self, attempt: Attempt, pod: Mapping[str, Any]) -> None:
        """The pod exists. One whose message is in a Secret waits for it, and counts as created when it is there."""
        uid = attempt.uid = str(pod["metadata"]["uid"])
        if attempt.stage != "ended":
            self._admission.created(attempt, uid=uid, now_s=time.monotonic())
        if attempt.has_payload and attempt.stage != "ended":
            begun_at = time.monotonic()
            try:
                text, files = attempt.message.encode(), workload.files(attempt.message)
                await self._cluster.put_secret(message_secret.secret(pod, text, files=files))
            except (errors.ApiError, errors.ApiUnavailable) as error:
                await self._after_error(attempt, error, begun_at=begun_at)
                return
        self._admission.pauses.worked(attempt.namespace, now_s=time.monotonic())
        attempt.manifest = b""  # the server has it now
        if attempt.stage == "ended":
            return  # the pod's events were faster than the answer to its create
        self._register.move(attempt, "created")
        attempt.reason = attempt.detail = None
        attempt.created_at = datetime.now(UTC)
        self._on_created(attempt)

    async def _after_error(self, attempt: Attempt, error: Failure, *, begun_at: float) -> None:
        if attempt.stage == "ended":
            return  # the create had worked: the pod's events were faster than the failure
        if create_errors.may_have_worked(error):
            attempt.is_in_doubt = True
            attempt.doubt_mono = attempt.doubt_mono or begun_at
        reaction = create_errors.react(error)
        if reaction.action == "adopt":
            await self._adopt(attempt, begun_at=begun_at)
        elif reaction.action in ("wait", "stop"):
            self._park(attempt, reaction, error, begun_at=begun_at)
        else:
            self._on_refused(attempt, _as_outcome(error, reason=reaction.reason, pod=attempt.pod))

    async def _adopt(self, attempt: Attempt, *, begun_at: float, is_claimed_before: bool = False) -> None:
        """A pod of this name is there, or was asked for. It is ours if it says so, and not if it is about to leave."""
        try:
            pod = await self._cluster.read_pod(attempt.namespace, attempt.pod)
        except (errors.ApiError, errors.ApiUnavailable) as error:
            if is_claimed_before and isinstance(error, errors.ApiError) and error.status == 404:
                await self._go(attempt, await self._permits.without_pod(attempt))
            else:
                attempt.is_in_doubt = True
                self._park(attempt, create_errors.Reaction("wait", "Conflict"), error, begun_at=begun_at)
            return
        if builder.key_of(pod) != attempt.key:
            foreign = errors.PodFailed(
                f"a pod named {attempt.pod} is in the namespace {attempt.namespace} and not of this task; delete it",
                {"reason": "NameTaken", "cause": "infrastructure", "pod": attempt.pod},
            )
            self._on_refused(attempt, foreign)
            return
        if self._is_leaving(pod):
            self._wait_for_name(attempt)
            return
        if self._is_finished(pod) or builder.owner_of(pod) != names.label_value(self._owner):
            self._on_dropped(attempt, "Adopted")  # or another dispatcher has it: it is that one's, or an orphan soon
            return
        logger.info("pod adopted attempt_id=%s pod=%s", attempt.message.id, attempt.pod)
        await self._created(attempt, pod)
        self._on_seen(pod)  # what it says already may have been told before we had its name

    def _wait_for_name(self, attempt: Attempt) -> None:
        """The pod of an earlier delivery is about to go."""
        detail = f"the pod {attempt.pod} of an earlier delivery is not gone yet"
        self._come_back(attempt, reason="PodLeaving", detail=detail, after_s=NAME_AGAIN_S)

    def _come_back(self, attempt: Attempt, *, reason: str, detail: str, after_s: float) -> None:
        """This attempt alone is tried again in a moment."""
        self._register.move(attempt, "waiting")
        attempt.reason, attempt.detail = reason, detail
        self._on_changed(attempt)
        asyncio.get_running_loop().call_later(after_s, self._line_up_again, attempt)

    def _line_up_again(self, attempt: Attempt) -> None:
        if attempt.stage == "waiting":
            self._admission.lines.add(attempt)
            self.pump()

    def _park(self, attempt: Attempt, reaction: create_errors.Reaction, error: Failure, *, begun_at: float) -> None:
        """Puts it back into its place in its line: after a while of its own, or while its namespace, or all, pause."""
        attempt.create_failures += 1
        scope = EVERYWHERE if reaction.action == "stop" else attempt.namespace
        hold, now_s = Hold(reaction.reason, str(error)), time.monotonic()
        wanted_s = getattr(error, "retry_after_s", None) or 0.0
        jitter = random.random()
        pauses = self._admission.pauses
        alone_s = pauses.alone_s(
            scope, hold, failures=attempt.create_failures, now_s=now_s, wanted_s=wanted_s, jitter=jitter
        )
        if alone_s is None:
            paused_s = pauses.pause(scope, hold, begun_at=begun_at, now_s=now_s, wanted_s=wanted_s, jitter=jitter)
            if paused_s is not None:
                logger.warning(
                    "launching paused namespace=%s reason=%s seconds=%.1f: %s",
                    scope or "(all)",
                    reaction.reason,
                    paused_s,
                    error,
                )
        self._register.move(attempt, "waiting")
        attempt.reason, attempt.detail = reaction.reason, str(error)
        until_s = None if alone_s is None else now_s + alone_s
        self._admission.park(attempt, is_in_doubt=_may_count(error), until_s=until_s)
        self._on_changed(attempt)


def _may_count(error: Failure) -> bool:
    """Whether a pod that may have been made keeps its slot. Of a server that answers and says no it gives it back: what
    keeps one namespace from creating must not take the slots of others."""
    return error.was_sent if isinstance(error, errors.ApiUnavailable) else error.status in _IN_DOUBT


def _as_outcome(error: BaseException, *, reason: str | None = None, pod: str | None = None) -> errors.PodFailed:
    details = {"reason": reason or type(error).__name__, "cause": "application", **({"pod": pod} if pod else {})}
    return errors.PodFailed(f"the pod was not launched: {error}", details)
