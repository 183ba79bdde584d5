"""The life of attempts on the cluster's side: submitted, created, running, ended, cleaned up; and adopted.

The one object that ties launcher, watcher, janitor and recorder together, on the loop's thread. What must happen on
Celery's side goes through `Hub`, on the hub's thread. Steps ③ to ⑦ of the flow.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from dispatcher import (
    cluster,
    errors,
    janitor,
    launcher,
    manifest,
    missing,
    orphans,
    outcome,
    payload,
    permissions,
    podresult,
    podstatus,
    recorder,
    resultsidecar,
    startlimits,
    watcher,
)
from dispatcher.attempt import Attempt, Register
from dispatcher.options import Options, QueueProfile
from dispatcher.podstore import PodRow, PodStore

logger = logging.getLogger(__name__)

CONNECT_AGAIN_S = 2.0
PAYLOAD_TRIES = 6
CLOCK_S = 0.5
"""How often pods that are late are looked for."""
RESULT_WAIT_S = 60.0
"""How long a result sidecar may take to tell, once the container has ended."""


class Hub(Protocol):
    """What the pool does for us on Celery's side. Each call is passed to the hub's thread and returns at once."""

    def created(self, attempt: Attempt) -> None:
        """The pod exists: the message may be acknowledged."""

    def started(self, attempt: Attempt) -> None:
        """The container runs, or ran: `attempt.started_at` is known."""

    def ended(self, attempt: Attempt, result: outcome.Outcome | BaseException) -> None:
        """The outcome is known and wants to be replayed; `closed` must follow."""

    def dropped(self, attempt: Attempt) -> None:
        """Another dispatcher owns this attempt now, or it came twice: forget it without a result."""

    def withdrawn(self, attempt: Attempt) -> None:
        """It was revoked before it had a pod."""

    def found(self, pod: Mapping[str, Any], *, is_ended: bool) -> None:
        """A pod of ours that nobody here knows: adopt it."""


class Lifecycle:
    """All attempts of one dispatcher."""

    def __init__(
        self,
        *,
        options: Options,
        owner: str,
        limit: int,
        hub: Hub,
        is_revoked: Callable[[Attempt], bool],
        is_over: Callable[[Attempt], bool],
        tell_lost: Callable[[PodRow], str | None],
        alive: Callable[[], set[str] | None],
    ) -> None:
        self._options = options
        self._owner = owner
        self._limit = limit
        self._hub = hub
        self._is_revoked = is_revoked
        self._is_over = is_over
        self._tell_lost = tell_lost
        self._alive = alive
        self._register = Register()
        self._early: list[Attempt] = []
        self._closed: set[str] = set()
        """uids of pods whose story is told; their last events are no news."""
        self._unread: set[str] = set()
        """uids of pods whose message is being read from its Secret."""
        self._returned: set[str] = set()
        """Of those the ones whose message was put back into its queue: their name is wanted again."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._cluster: cluster.Cluster | None = None
        self._launcher: launcher.Launcher | None = None
        self._watcher: watcher.Watcher | None = None
        self._janitor: janitor.Janitor | None = None
        url = options.database_url
        self._recorder = recorder.Recorder((lambda: PodStore(url)) if url else None)
        self._trouble: str | None = "not connected yet"
        self._missing: list[str] = []
        """Permissions that we do not have."""

    async def run(self) -> None:
        """Connects, waiting for the API server as long as it takes, and works until it is cancelled."""
        access = await self._access()
        async with cluster.Cluster(access) as self._cluster:
            await self._server_answers()
            self._janitor = janitor.Janitor(cluster=self._cluster, options=self._options, on_saved=self._log_saved)
            self._watcher = watcher.Watcher(
                cluster=self._cluster,
                selector=manifest.selector(deployment=self._options.deployment, owner=self._owner),
                on_pod=self._on_pod,
                on_list=self._on_list,
            )
            self._launcher = launcher.Launcher(
                cluster=self._cluster,
                register=self._register,
                options=self._options,
                owner=self._owner,
                limit=self._limit,
                on_created=self._on_created,
                on_refused=self._on_refused,
                on_changed=self._record_waiting,
                on_withdrawn=self._on_withdrawn,
                is_revoked=self._is_revoked,
                is_leaving=lambda pod: bool(pod["metadata"].get("deletionTimestamp")) or _uid(pod) in self._returned,
                is_finished=lambda pod: _uid(pod) in self._closed or manifest.is_done(pod),
                on_finished=self._on_finished,
                is_over=self._is_over,
                watch=self._watcher.watch,
            )
            for namespace in (*self._options.namespaces, *self._options.policy.plain_namespaces):
                self._watcher.watch(namespace)
            self._spawn(self._check_permissions())
            self._spawn(self._find_namespaces())
            self._spawn(self._watch_the_clock())
            self._spawn(
                orphans.Orphans(
                    cluster=self._cluster,
                    selector=manifest.selector(deployment=self._options.deployment),
                    owner=self._owner,
                    namespaces=lambda: self._watcher.namespaces if self._watcher else (),
                    alive=self._alive,
                ).run()
            )
            self._look_for_missing(self._cluster)
            early, self._early = self._early, []
            for attempt in early:
                self._launcher.submit(attempt)
            await self._recorder.run()

    def _look_for_missing(self, api: cluster.Cluster) -> None:
        url = self._options.database_url
        if url is None:
            return
        looking = missing.Missing(
            cluster=api,
            open_store=lambda: PodStore(url),
            deployment=self._options.deployment,
            owner=self._owner,
            is_known=self._register.has,
            alive=self._alive,
            tell_lost=self._tell_lost,
        )
        self._spawn(looking.run())

    async def _check_permissions(self) -> None:
        try:
            self._missing = await permissions.missing(self._api, namespaces=self._options.namespaces)
        except errors.ApiUnavailable as error:
            logger.info("permissions were not checked: %s", error)
            return
        if self._missing:
            logger.error("permissions are missing, tasks will fail or wait: %s", "; ".join(self._missing))

    async def _find_namespaces(self) -> None:
        """Where tasks may choose any namespace, those that hold pods of ours are found by one list of the cluster."""
        if not self._options.policy.has_namespace_patterns:
            return
        try:
            found = await self._api.list_pods(None, selector=manifest.selector(deployment=self._options.deployment))
        except (errors.ApiError, errors.ApiUnavailable) as error:
            logger.warning("namespaces with pods of ours were not looked for: %s", error)
            return
        for namespace in {pod["metadata"]["namespace"] for pod in found.pods}:
            if self._watcher is not None:
                self._watcher.watch(namespace)

    async def _watch_the_clock(self) -> None:
        """Ends what takes too long to start, or to tell its result."""
        while True:
            await asyncio.sleep(CLOCK_S)
            now_s = time.monotonic()
            for attempt in self._register:
                if attempt.stage == "created":
                    self._check_time(attempt, now_s)

    async def _access(self) -> cluster.Access:
        while True:
            try:
                return await asyncio.to_thread(cluster.connect_as, self._options)
            except errors.DispatcherError as error:
                await self._wait_for_server(error)

    async def _server_answers(self) -> None:
        while True:
            try:
                version = await self._api.read_version()
            except (errors.ApiError, errors.ApiUnavailable) as error:
                await self._wait_for_server(error)
            else:
                self._trouble = None
                logger.info("connected to Kubernetes version=%s", version.get("gitVersion"))
                return

    async def _wait_for_server(self, error: Exception) -> None:
        if str(error) != self._trouble:
            logger.warning("waiting for Kubernetes: %s", error)
        self._trouble = str(error)
        await asyncio.sleep(CONNECT_AGAIN_S)

    def submit(self, attempt: Attempt) -> None:
        """Takes an attempt in; one that is in flight already is not launched again."""
        if not self._register.add(attempt):
            logger.info("delivered twice, goes on once attempt_id=%s", attempt.message.id)
            self._hub.dropped(attempt)
        elif self._launcher is None:
            attempt.reason, attempt.detail = "ApiServerUnavailable", self._trouble
            self._early.append(attempt)
        else:
            self._launcher.submit(attempt)

    def adopt(self, attempt: Attempt, pod: Mapping[str, Any]) -> None:
        """Takes an attempt back whose pod was found in the cluster."""
        if not self._register.add(attempt):
            self._hub.dropped(attempt)
            return
        metadata = pod["metadata"]
        attempt.pod, attempt.namespace, attempt.uid = metadata["name"], metadata["namespace"], metadata["uid"]
        attempt.has_payload = payload.name_in(pod) is not None
        attempt.created_at, attempt.created_mono = datetime.now(UTC), time.monotonic()
        self._register.move(attempt, "created")
        self._register.name_pod(attempt)
        logger.info("pod adopted attempt_id=%s pod=%s", attempt.message.id, attempt.pod)
        self._on_pod(pod, "ADDED")

    def terminate(self, attempt: Attempt) -> None:
        """Ends an attempt because Celery says so (revoke, time limit); Celery has stored the result itself."""
        if attempt.stage == "waiting" and attempt in self._early:
            self._early.remove(attempt)
        elif attempt.stage == "waiting" and self._launcher is not None:
            self._launcher.withdraw(attempt)
        elif attempt.stage == "created" and self._janitor is not None:
            self._register.remove(attempt)
            self._closed.add(attempt.uid or "")
            self._janitor.kill(self._ended_of(attempt, is_success=False))
            self._pump()
            return
        else:
            return  # being created: the revocation is remembered by Celery and comes again with `created`
        self._on_withdrawn(attempt)

    def closed(self, attempt: Attempt, *, is_success: bool) -> None:
        """The outcome is stored. Only now may the pod go."""
        self._register.remove(attempt)
        if attempt.uid is not None and self._janitor is not None:
            self._closed.add(attempt.uid)
            clean = self._janitor.delete if attempt.must_go else self._janitor.take
            clean(self._ended_of(attempt, is_success=is_success))
        self._pump()

    def given_back(self, attempt: Attempt) -> None:
        """Celery put its message back into the queue: the pod goes at once, whatever the policy, to free its name."""
        self._register.remove(attempt)
        if attempt.uid is not None and self._janitor is not None:
            self._closed.add(attempt.uid)
            self._returned.add(attempt.uid)
            self._janitor.delete(self._ended_of(attempt, is_success=False))
        self._pump()

    def clean(self, pod: Mapping[str, Any], profile: QueueProfile, *, is_success: bool) -> None:
        """Cleans up behind a pod whose outcome had been stored by a dispatcher before us."""
        key = manifest.key_of(pod)
        if self._janitor is not None and key is not None:
            self._closed.add(pod["metadata"]["uid"])
            self._janitor.take(janitor.ended_of(pod, attempt_id=key[0], profile=profile, is_success=is_success))

    def set_limit(self, limit: int) -> None:
        """Changes how many pods may be in flight."""
        self._limit = limit
        if self._launcher is not None:
            self._launcher.limit = limit
            self._launcher.pump()

    def stats(self) -> dict[str, Any]:
        """Facts for `inspect stats`. Called from the hub's thread: it only reads."""
        stages = self._register.stages()
        return {
            "pods-in-flight": stages["created"] + stages["creating"],
            "waiting": stages["waiting"],
            "ended-not-stored": stages["ended"],
            "api-requests": self._cluster.requests if self._cluster else 0,
            "lists": self._watcher.relists if self._watcher else 0,
            "events-skipped": self._watcher.skipped if self._watcher else 0,
            "leftovers": self._janitor.leftovers if self._janitor else 0,
            "missing-permissions": list(self._missing),
            "trouble": self._trouble or "; ".join((self._watcher.trouble if self._watcher else {}).values()) or None,
        }

    @property
    def _api(self) -> cluster.Cluster:
        if self._cluster is None:
            raise RuntimeError("not connected")
        return self._cluster

    def _pump(self) -> None:
        if self._launcher is not None:
            self._launcher.pump()

    def _on_created(self, attempt: Attempt) -> None:
        attempt.created_mono = time.monotonic()
        self._recorder.record(self._row(attempt, phase="Pending"))
        self._hub.created(attempt)

    def _on_withdrawn(self, attempt: Attempt) -> None:
        self._register.remove(attempt)
        self._recorder.record(self._row(attempt, phase="Revoked"))
        self._hub.withdrawn(attempt)

    def _on_finished(self, attempt: Attempt) -> None:
        """A delivery of what was run and stored before: no second run, and no second result."""
        logger.info("delivered again after its end attempt_id=%s", attempt.message.id)
        self._register.remove(attempt)
        self._hub.dropped(attempt)

    def _on_refused(self, attempt: Attempt, error: BaseException) -> None:
        self._register.move(attempt, "ended")
        details = getattr(error, "details", {})
        row = self._row(
            attempt, phase="Failed", reason=details.get("reason"), message=str(error), cause=details.get("cause")
        )
        self._recorder.record(row)
        self._hub.ended(attempt, error)

    def _on_pod(self, pod: Mapping[str, Any], kind: str) -> None:
        metadata = pod["metadata"]
        if metadata["uid"] in self._closed:
            if kind == "DELETED":
                self._closed.discard(metadata["uid"])
                self._returned.discard(metadata["uid"])
            return
        attempt = self._register.by_pod(metadata["namespace"], metadata["name"])
        seen = podstatus.observe(pod, kind, base=manifest.base_of(pod))
        if attempt is None:
            if kind != "DELETED" and manifest.key_of(pod) is not None:
                self._found(pod, is_ended=seen.verdict in ("succeeded", "failed"))
            return
        if (
            attempt.stage == "ended"
            or manifest.key_of(pod) != attempt.key
            or attempt.uid not in (None, metadata["uid"])
        ):
            return  # an older pod's late event never touches this attempt
        attempt.uid = metadata["uid"]
        self._follow(attempt, pod, seen, is_last=kind == "DELETED")

    def _follow(self, attempt: Attempt, pod: Mapping[str, Any], seen: podstatus.Observation, *, is_last: bool) -> None:
        status = pod.get("status") or {}
        if (
            attempt.started_at is None
            and seen.started_at is not None
            and seen.verdict in ("running", "succeeded", "failed")
        ):
            attempt.started_at = podresult.time_of(seen.started_at)
            self._hub.started(attempt)
        attempt.ended_at = podresult.time_of(seen.ended_at)
        attempt.seen = seen
        if seen.is_scheduled and attempt.scheduled_mono is None:
            attempt.scheduled_mono = time.monotonic()
        self._recorder.record(
            self._row(
                attempt,
                phase=str(status.get("phase") or "Unknown"),
                reason=seen.reason,
                message=seen.message if seen.verdict != "succeeded" else None,
                cause=seen.cause,
                exit_code=seen.exit_code,
                node=seen.node,
                ended_at=podresult.time_of(seen.ended_at),
            )
        )
        if seen.verdict == "gone":
            self._register.remove(attempt)
            self._hub.dropped(attempt)
            self._pump()
        elif seen.verdict in ("succeeded", "failed"):
            told = resultsidecar.told(pod) if attempt.wanted.result_path is not None else None
            if told is not None and told.kind == "waiting" and seen.verdict == "succeeded" and not is_last:
                attempt.awaits_result_mono = attempt.awaits_result_mono or time.monotonic()
                return
            self._end(attempt, seen, told)

    def _end(self, attempt: Attempt, seen: podstatus.Observation, told: resultsidecar.Told | None = None) -> None:
        """Its pod has said all: the outcome is read, and told to Celery's side."""
        self._register.move(attempt, "ended")
        self._pump()
        self._spawn(
            self._tell(
                attempt, podresult.read(self._api, attempt, seen, told=told, max_bytes=self._options.result_max_bytes)
            )
        )

    async def _tell(self, attempt: Attempt, reading: Awaitable[podresult.Result]) -> None:
        try:
            result = await reading
        except Exception as error:
            logger.exception("an outcome could not be read attempt_id=%s pod=%s", attempt.message.id, attempt.pod)
            result = errors.PodFailed(
                f"the outcome of the pod {attempt.pod} could not be read: {error!r}",
                {"reason": "OutcomeUnreadable", "cause": "unknown", "pod": attempt.pod},
            )
        self._hub.ended(attempt, result)

    def _check_time(self, attempt: Attempt, now_s: float) -> None:
        seen = attempt.seen or podstatus.Observation(verdict="none")
        if attempt.awaits_result_mono is not None:
            if now_s - attempt.awaits_result_mono > RESULT_WAIT_S:
                self._end(attempt, seen, resultsidecar.Told(kind="lost"))
            return
        if attempt.started_at is not None or seen.verdict != "none":
            return
        late = startlimits.late(
            created_s=attempt.created_mono,
            scheduled_s=attempt.scheduled_mono,
            now_s=now_s,
            wanted=attempt.wanted,
            profile=attempt.profile,
        )
        if late is None:
            return
        attempt.must_go = True
        failure = podresult.not_in_time(attempt, seen, late)
        self._register.move(attempt, "ended")
        facts = {key: failure.details.get(key) for key in ("reason", "cause", "node")}
        self._recorder.record(self._row(attempt, phase="Failed", message=str(failure), **facts))
        self._pump()
        self._spawn(self._tell(attempt, podresult.explained(self._api, attempt, failure)))

    def _on_list(self, namespace: str, pods: Mapping[str, Mapping[str, Any]], asked_at: float) -> None:
        """Closes the gap between what is in flight and what is in the cluster."""
        for attempt in self._register:
            known = attempt.stage == "created" and attempt.namespace == namespace
            if known and attempt.created_mono < asked_at and attempt.pod not in pods:
                self._spawn(self._look_for(attempt))
        if len(self._watcher.namespaces if self._watcher else ()) <= 1:
            self._closed &= {pod["metadata"]["uid"] for pod in pods.values()}

    async def _look_for(self, attempt: Attempt) -> None:
        try:
            pod = await self._api.read_pod(attempt.namespace, attempt.pod)
        except errors.ApiError as error:
            if error.status != 404 or attempt.stage != "created":
                return
            self._register.move(attempt, "ended")
            gone = errors.PodFailed(
                f"the pod {attempt.pod} was deleted while nobody watched; nothing is known of its end",
                {"reason": "PodDeleted", "cause": "infrastructure", "pod": attempt.pod},
            )
            self._recorder.record(
                self._row(attempt, phase="Failed", reason="PodDeleted", message=str(gone), cause="infrastructure")
            )
            attempt.uid = None
            self._hub.ended(attempt, gone)
        except errors.ApiUnavailable:
            return  # the next list looks again
        else:
            if pod["metadata"]["uid"] == attempt.uid and attempt.stage == "created":
                self._register.remove(attempt)
                self._hub.dropped(attempt)

    def _found(self, pod: Mapping[str, Any], *, is_ended: bool) -> None:
        name = payload.name_in(pod)
        if name is None:
            self._hub.found(pod, is_ended=is_ended)
        elif _uid(pod) not in self._unread:
            self._unread.add(_uid(pod))
            self._spawn(self._found_with_payload(pod, name, is_ended=is_ended))

    async def _found_with_payload(self, pod: Mapping[str, Any], name: str, *, is_ended: bool) -> None:
        """Reads the message first. Where there is none yet, its delivery was not acknowledged and comes again."""
        namespace = pod["metadata"]["namespace"]
        for failures in range(1, PAYLOAD_TRIES + 1):
            try:
                text = payload.text_in(await self._api.read_secret(namespace, name))
            except (errors.ApiError, errors.ApiUnavailable, ValueError) as error:
                trouble = error
                await asyncio.sleep(launcher.backoff_s(failures, jitter=0))
            else:
                self._hub.found(payload.with_message(pod, text), is_ended=is_ended)
                break
        else:
            logger.warning("a pod cannot be adopted, its message is missing pod=%s: %s", name, trouble)
        self._unread.discard(_uid(pod))

    def _record_waiting(self, attempt: Attempt) -> None:
        self._recorder.record(self._row(attempt, phase="Waiting", reason=attempt.reason, message=attempt.detail))

    def _log_saved(self, ended: janitor.Ended, path: str) -> None:
        logger.debug("log saved attempt_id=%s path=%s", ended.attempt_id, path)

    def _ended_of(self, attempt: Attempt, *, is_success: bool) -> janitor.Ended:
        return janitor.Ended(
            attempt_id=attempt.message.id,
            namespace=attempt.namespace,
            pod=attempt.pod,
            uid=attempt.uid,
            profile=attempt.profile,
            is_success=is_success,
            has_payload=attempt.has_payload,
            wanted=attempt.wanted,
            epilogue=attempt.epilogue if attempt.wanted.logs.has_events else (),
        )

    def _row(self, attempt: Attempt, *, phase: str, **facts: Any) -> PodRow:
        return PodRow(
            attempt_id=attempt.message.id,
            retries=attempt.message.retries,
            deployment=self._options.deployment,
            name=attempt.pod,
            namespace=attempt.namespace,
            uid=attempt.uid,
            queue=attempt.queue,
            task=attempt.message.name,
            owner=self._owner,
            phase=phase,
            updated_at=datetime.now(UTC),
            received_at=attempt.received_at,
            created_at=attempt.created_at,
            started_at=attempt.started_at,
            **facts,
        )

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _uid(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"]["uid"])
