"""The launcher: takes attempts in, builds their pods and creates them, no faster than limits and the server allow.

Steps ③ to ⑤ of the flow. Each queue keeps its order; `max_pods` bounds what a queue has in flight, the pool's limit
bounds all queues together. What the API server says is read from one table (`reactions`): back-pressure parks a
namespace with back-off, an unusable manifest fails its own attempt. Runs on the loop's thread.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from dispatcher import backoff, errors, manifest, names, payload, reactions
from dispatcher.attempt import Attempt, Register
from dispatcher.cluster import Cluster
from dispatcher.options import Options

logger = logging.getLogger(__name__)

DOUBT_AFTER_S = 3.0
"""What waited so long may have been delivered to another dispatcher, too."""
NAME_AGAIN_S = 0.5


class Launcher:
    """The admission window and the creates under way."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        register: Register,
        options: Options,
        owner: str,
        limit: int,
        on_created: Callable[[Attempt], None],
        on_refused: Callable[[Attempt, BaseException], None],
        on_changed: Callable[[Attempt], None],
        on_withdrawn: Callable[[Attempt], None],
        is_revoked: Callable[[Attempt], bool],
        is_leaving: Callable[[Mapping[str, Any]], bool],
        on_finished: Callable[[Attempt], None],
        is_finished: Callable[[Mapping[str, Any]], bool],
        is_over: Callable[[Attempt], bool],
        watch: Callable[[str], None],
    ) -> None:
        self._cluster = cluster
        self._register = register
        self._options = options
        self._owner = owner
        self.limit = limit
        self._on_created = on_created
        self._on_refused = on_refused
        self._on_changed = on_changed
        self._on_withdrawn = on_withdrawn
        self._is_revoked = is_revoked
        self._is_leaving = is_leaving
        self._on_finished = on_finished
        self._is_finished = is_finished
        self._is_over = is_over
        self._watch = watch
        self._waiting: dict[str, deque[Attempt]] = {}
        self._paused_until: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._creates: set[asyncio.Task[None]] = set()

    def submit(self, attempt: Attempt) -> None:
        """Takes an attempt in. Its manifest is built at once: what cannot be launched fails before it waits."""
        try:
            built = manifest.build(
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
        attempt.has_payload = payload.name_in(built) is not None
        self._register.move(attempt, "waiting")
        self._waiting.setdefault(attempt.queue, deque()).append(attempt)
        self.pump()
        if attempt.stage == "waiting":
            self._explain(attempt)

    def pump(self) -> None:
        """Starts creates while limits allow. Call it whenever an attempt ended or a limit changed."""
        for queue, waiting in self._waiting.items():
            while waiting and self._may_create(queue, waiting[0]):
                attempt = waiting.popleft()
                if attempt.stage != "waiting":
                    continue  # its create had worked, though we saw a failure, and its pod has ended meanwhile
                if self._is_revoked(attempt):
                    self._on_withdrawn(attempt)
                    continue
                self._register.move(attempt, "creating")
                attempt.reason = attempt.detail = None
                task = asyncio.get_running_loop().create_task(self._create(attempt))
                self._creates.add(task)
                task.add_done_callback(self._create_done)

    def withdraw(self, attempt: Attempt) -> bool:
        """Takes an attempt out of its queue's waiting line. Says whether it was there."""
        waiting = self._waiting.get(attempt.queue, deque())
        if attempt not in waiting:
            return False
        waiting.remove(attempt)
        return True

    def _may_create(self, queue: str, attempt: Attempt) -> bool:
        if len(self._creates) >= self._options.create_concurrency:
            return False
        if self._paused_until.get(attempt.namespace, 0.0) > time.monotonic():
            return False
        if self._register.launched_in_all() >= self.limit:
            return False
        return self._register.launched(queue) < attempt.profile.max_pods

    def _explain(self, attempt: Attempt) -> None:
        paused = self._paused_until.get(attempt.namespace, 0.0) > time.monotonic()
        if not paused:
            limit = min(attempt.profile.max_pods, self.limit)
            attempt.reason, attempt.detail = (
                "WaitingForSlot",
                f"{limit} pods of the queue {attempt.queue} are in flight",
            )
        self._on_changed(attempt)

    async def _create(self, attempt: Attempt) -> None:
        if await self._was_told(attempt):
            self._on_finished(attempt)
            return
        self._register.name_pod(attempt)
        self._watch(attempt.namespace)
        try:
            pod = await self._cluster.create_pod(attempt.namespace, attempt.manifest)
        except (errors.ApiError, errors.ApiUnavailable) as error:
            await self._after_error(attempt, error)
        else:
            await self._created(attempt, pod)

    async def _was_told(self, attempt: Attempt) -> bool:
        """Whether the outcome of an attempt stands already: its name is a claim only as long as its pod is there.

        Asked of what says that it comes again, and of what waited: a broker delivers again what was not acknowledged in
        time. While the result backend is away such an attempt waits: it must not run a second time.
        """
        failures = 0
        while attempt.message.is_repeat or (datetime.now(UTC) - attempt.received_at).total_seconds() > DOUBT_AFTER_S:
            try:
                return await asyncio.to_thread(self._is_over, attempt)
            except Exception as error:  # noqa: BLE001 - the result backend is another's code, away or not
                failures += 1
                attempt.reason, attempt.detail = "ResultBackendUnavailable", str(error)
                self._on_changed(attempt)
                await asyncio.sleep(backoff.backoff_s(failures, jitter=random.random()))  # noqa: S311 - jitter is no secret
        return False

    def _create_done(self, task: asyncio.Task[None]) -> None:
        self._creates.discard(task)
        if not task.cancelled():
            self.pump()

    async def _created(self, attempt: Attempt, pod: Mapping[str, Any]) -> None:
        """The pod exists. One whose message is in a Secret waits for it, and counts as created when it is there."""
        attempt.uid = pod["metadata"]["uid"]
        if attempt.has_payload and attempt.stage != "ended":
            try:
                await self._cluster.put_secret(payload.secret(pod, attempt.message.encode()))
            except (errors.ApiError, errors.ApiUnavailable) as error:
                await self._after_error(attempt, error)
                return
        self._failures.pop(attempt.namespace, None)
        attempt.manifest = b""  # the server has it now
        if attempt.stage == "ended":
            return  # the pod's events were faster than the answer to its create
        self._register.move(attempt, "created")
        attempt.reason = attempt.detail = None
        attempt.created_at = datetime.now(UTC)
        self._on_created(attempt)

    async def _after_error(self, attempt: Attempt, error: errors.ApiError | errors.ApiUnavailable) -> None:
        if attempt.stage == "ended":
            return  # the create had worked: the pod's events were faster than the failure
        attempt.is_in_doubt |= reactions.may_have_worked(error)
        reaction = reactions.react(error)
        if reaction.action == "adopt":
            await self._adopt(attempt)
        elif reaction.action in ("wait", "stop"):
            self._park(attempt, reason=reaction.reason, error=error)
        else:
            self._on_refused(attempt, _as_outcome(error, reason=reaction.reason, pod=attempt.pod))

    async def _adopt(self, attempt: Attempt) -> None:
        """A pod of this name is there. It is ours if it says so, and not if it is about to leave."""
        try:
            pod = await self._cluster.read_pod(attempt.namespace, attempt.pod)
        except (errors.ApiError, errors.ApiUnavailable) as error:
            attempt.is_in_doubt = True
            self._park(attempt, reason="Conflict", error=error)
            return
        if manifest.key_of(pod) != attempt.key:
            foreign = errors.PodFailed(
                f"a pod named {attempt.pod} is in the namespace {attempt.namespace} and not of this task; delete it",
                {"reason": "NameTaken", "cause": "infrastructure", "pod": attempt.pod},
            )
            self._on_refused(attempt, foreign)
            return
        if self._is_leaving(pod):
            self._wait_for_name(attempt)
            return
        if self._is_finished(pod) or manifest.owner_of(pod) != names.label_value(self._owner):
            self._on_finished(attempt)  # or another dispatcher has it: it is that one's, or an orphan soon
            return
        logger.info("pod adopted attempt_id=%s pod=%s", attempt.message.id, attempt.pod)
        await self._created(attempt, pod)

    def _wait_for_name(self, attempt: Attempt) -> None:
        """The pod of an earlier delivery is about to go: this attempt alone comes back in a moment."""
        self._register.move(attempt, "waiting")
        attempt.reason = "PodLeaving"
        attempt.detail = f"the pod {attempt.pod} of an earlier delivery is not gone yet"
        self._on_changed(attempt)
        asyncio.get_running_loop().call_later(NAME_AGAIN_S, self._line_up_again, attempt)

    def _line_up_again(self, attempt: Attempt) -> None:
        if attempt.stage == "waiting":
            self._line_up(attempt)
            self.pump()

    def _line_up(self, attempt: Attempt) -> None:
        """Into its queue's waiting line, by the time at which it was received."""
        line = self._waiting.setdefault(attempt.queue, deque())
        place = next((place for place, other in enumerate(line) if other.received_at > attempt.received_at), len(line))
        line.insert(place, attempt)

    def _park(self, attempt: Attempt, *, reason: str, error: errors.ApiError | errors.ApiUnavailable) -> None:
        """Puts it back at the head of its line, and pauses its namespace with back-off and jitter."""
        failures = self._failures[attempt.namespace] = self._failures.get(attempt.namespace, 0) + 1
        wanted = getattr(error, "retry_after_s", None)
        delay_s = max(wanted or 0.0, backoff.backoff_s(failures, jitter=random.random()))  # noqa: S311 - jitter is no secret
        now = time.monotonic()
        if now + delay_s > self._paused_until.get(attempt.namespace, 0.0):
            self._paused_until[attempt.namespace] = now + delay_s
            asyncio.get_running_loop().call_later(delay_s, self.pump)
            logger.warning(
                "launching paused namespace=%s reason=%s seconds=%.1f: %s", attempt.namespace, reason, delay_s, error
            )
        self._register.move(attempt, "waiting")
        attempt.reason, attempt.detail = reason, str(error)
        self._line_up(attempt)
        self._on_changed(attempt)


def _as_outcome(error: BaseException, *, reason: str | None = None, pod: str | None = None) -> errors.PodFailed:
    details = {"reason": reason or type(error).__name__, "cause": "application", **({"pod": pod} if pod else {})}
    return errors.PodFailed(f"the pod was not launched: {error}", details)
