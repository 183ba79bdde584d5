"""The life of attempts on the cluster's side: submitted, created, running, ended, cleaned up; and adopted.

The one object that ties launcher, watcher, endings and janitor together, on the loop's thread. What must happen on
Celery's side goes through `Hub`, on the hub's thread. Steps ③ to ⑦ of the flow.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dispatcher import errors
from dispatcher.admission.capacity import Capacity
from dispatcher.attempts.attempt import Attempt, Register
from dispatcher.attempts.status_notes import Notes
from dispatcher.attempts.status_store import PodRow, PodStore
from dispatcher.attempts.worker_port import Hub
from dispatcher.background import Background
from dispatcher.finishing import cleanup, log_page, result_reader
from dispatcher.finishing.completion import Endings
from dispatcher.kubeapi import access_review, client
from dispatcher.kubeapi.connect import Connection
from dispatcher.launching import launcher
from dispatcher.launching.claim_client import Book, Claims
from dispatcher.launching.launch_guard import Permits
from dispatcher.manifests import builder, names
from dispatcher.options import Options, QueueProfile
from dispatcher.watching import lost_pods, takeover, watcher
from dispatcher.watching.clock import Clock
from dispatcher.watching.deadlines import Deadlines
from dispatcher.watching.event_hints import Clues
from dispatcher.watching.ownership import Ownership
from dispatcher.watching.pod_handler import Sightings, uid_of
from dispatcher.watching.resync import RollCall
from dispatcher.watching.startup_queue import Early
from dispatcher.watching.unknown_pods import Findings

logger = logging.getLogger(__name__)

LET_GO_S = 1.0
"""How long a stop tries to take back claims."""


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What works once there is a cluster to work on."""

    cluster: client.KubeClient
    launcher: launcher.Launcher
    watcher: watcher.Watcher
    janitor: cleanup.Janitor
    endings: Endings
    findings: Findings
    capacity: Capacity
    roll_call: RollCall
    sightings: Sightings
    ownership: Ownership


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
        book: Book | None = None,
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
        self._background = Background()
        self._connection = Connection(options)
        self._notes = Notes(options, owner=owner)
        self._claims = Claims(book, owner=owner) if book is not None else None
        self._parts: _Parts | None = None
        self._early = Early(register=self._register, notes=self._notes, hub=hub)
        self._missing: list[str] = []
        """Permissions that we do not have."""

    async def run(self) -> None:
        """Connects, waiting for the API server as long as it takes, and works until it is cancelled."""
        notes = asyncio.get_running_loop().create_task(self._notes.run())
        self._background.spawn(self._early.run())
        try:
            await self._work(notes)
        finally:
            notes.cancel()
            await asyncio.wait([notes])

    async def _work(self, notes: asyncio.Task[None]) -> None:
        async with client.KubeClient(await self._connection.access()) as api:
            await self._connection.answers(api)
            self._parts = self._made(api)
            for namespace in (*self._options.namespaces, *self._options.policy.plain_namespaces):
                self._parts.watcher.watch(namespace)
            self._start_beside(self._parts)
            for attempt in self._early.take_all():
                self._parts.launcher.submit(attempt)
            try:
                await notes
            finally:
                await self._let_go(self._parts)
                await _end(asyncio.all_tasks() - {asyncio.current_task(), notes})

    async def _let_go(self, parts: _Parts) -> None:
        """The end: no more creates, those under way are waited for, and what was not sent is claimed no longer."""
        await parts.launcher.close()
        if self._claims is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._claims.close(), LET_GO_S)
        await parts.capacity.ledger.leave()

    def _made(self, api: client.KubeClient) -> _Parts:
        endings = Endings(
            api,
            register=self._register,
            notes=self._notes,
            hub=self._hub,
            background=self._background,
            pump=self._pump,
            result_max_bytes=self._options.result_max_bytes,
        )
        permits = Permits(self._claims, is_over=self._is_over, on_waiting=self._notes.waiting)
        room = Capacity(
            api,
            options=self._options,
            owner=self._owner,
            own_limit=self._limit,
            create_concurrency=self._options.create_concurrency + permits.ahead,
            is_counted=lambda: watching.has_listed,
            on_room=self._pump_soon,
        )
        findings = Findings(api, hub=self._hub, background=self._background)
        sightings = Sightings(
            register=self._register,
            notes=self._notes,
            hub=self._hub,
            capacity=room,
            endings=endings,
            findings=findings,
            namespaces=lambda: watching.namespaces,
            pump=self._pump,
        )
        selector = builder.selector(deployment=self._options.deployment, owner=self._owner)
        watching = watcher.Watcher(
            cluster=api,
            selector=selector,
            on_pod=sightings.on_pod,
            on_list=sightings.on_list,
        )
        return _Parts(
            cluster=api,
            capacity=room,
            ownership=Ownership(api, owner=self._owner, is_over=self._is_over),
            watcher=watching,
            endings=endings,
            findings=findings,
            sightings=sightings,
            janitor=cleanup.Janitor(cluster=api, options=self._options, on_saved=self._log_saved),
            roll_call=RollCall(
                cluster=api,
                register=self._register,
                selector=selector,
                on_pod=sightings.on_pod,
                on_missing=endings.missed,
                is_ours=lambda pod: builder.owner_of(pod) == names.label_value(self._owner),
                renew=watching.renew,
            ),
            launcher=launcher.Launcher(
                cluster=api,
                register=self._register,
                admission=room.admission,
                options=self._options,
                owner=self._owner,
                on_created=self._on_created,
                on_refused=endings.refused,
                on_changed=self._notes.waiting,
                on_withdrawn=self._on_withdrawn,
                is_revoked=self._is_revoked,
                is_leaving=sightings.is_leaving,
                is_finished=sightings.is_finished,
                on_dropped=self._on_dropped,
                on_lost=endings.lost,
                on_seen=lambda pod: sightings.on_pod(pod, "MODIFIED"),
                permits=permits,
                watch=watching.watch,
                listed_mono=sightings.listed_mono,
            ),
        )

    def _start_beside(self, parts: _Parts) -> None:
        """The loops that look at the world by themselves."""
        self._background.spawn(self._check_permissions(parts.cluster))
        self._background.spawn(self._find_namespaces(parts))
        self._background.spawn(parts.capacity.ledger.run())
        self._background.spawn(parts.launcher.run())
        self._background.spawn(self._clock(parts).run())
        looking_for_orphans = takeover.Orphans(
            cluster=parts.cluster,
            selector=builder.selector(deployment=self._options.deployment),
            owner=self._owner,
            namespaces=lambda: parts.watcher.namespaces,
            alive=self._alive,
            on_foreign=parts.capacity.ledger.saw,
        )
        self._background.spawn(looking_for_orphans.run())
        self._background.spawn(parts.roll_call.run())
        if self._claims is not None:
            self._background.spawn(self._claims.run())
        url = self._options.database_url
        if url is None:
            return
        looking_for_missing = lost_pods.Missing(
            cluster=parts.cluster,
            open_store=lambda: PodStore(url),
            deployment=self._options.deployment,
            owner=self._owner,
            is_known=self._register.has,
            alive=self._alive,
            tell_lost=self._tell_lost,
        )
        self._background.spawn(looking_for_missing.run())

    def _clock(self, parts: _Parts) -> Clock:
        return Clock(
            register=self._register,
            endings=parts.endings,
            deadlines=Deadlines(
                parts.cluster,
                owner=self._owner,
                endings=parts.endings,
                background=self._background,
                on_pod=parts.sightings.on_pod,
                withdraw=parts.launcher.withdraw,
                save_log=lambda attempt: parts.janitor.save_log(_ended_of(attempt, is_success=False)),
            ),
            clues=Clues(parts.cluster, notes=self._notes, background=self._background),
        )

    async def _check_permissions(self, api: client.KubeClient) -> None:
        try:
            self._missing = await access_review.missing(api, namespaces=self._options.namespaces)
        except errors.ApiUnavailable as error:
            logger.info("permissions were not checked: %s", error)
            return
        if self._missing:
            logger.error("permissions are missing, tasks will fail or wait: %s", "; ".join(self._missing))

    async def _find_namespaces(self, parts: _Parts) -> None:
        """Where tasks may choose any namespace, those that hold pods of ours are found by one list of the cluster."""
        if not self._options.policy.has_namespace_patterns:
            return
        selector = builder.selector(deployment=self._options.deployment)
        try:
            found = await parts.cluster.list_pods(None, selector=selector)
        except (errors.ApiError, errors.ApiUnavailable) as error:
            logger.warning("namespaces with pods of ours were not looked for: %s", error)
            return
        for namespace in {pod["metadata"]["namespace"] for pod in found.pods}:
            parts.watcher.watch(namespace)

    async def server_answers(self) -> None:
        """Returns if the API server gives a sign of life; raises what keeps us from it."""
        await self._connection.check()
        if self._parts is not None:
            await self._parts.cluster.read_version()

    async def log_page(self, attempt_id: str, offset: int) -> log_page.Page | None:
        """A piece of an attempt's log: of its pod, or as it was saved; None where nothing of it is here."""
        attempt = next((one for one in self._register if one.message.id == attempt_id), None)
        if attempt is None or self._parts is None or offset:
            return await log_page.of_file(self._options.log_folder, attempt_id, offset=offset)
        return await log_page.of_attempt(self._parts.cluster, attempt)

    def submit(self, attempt: Attempt) -> None:
        """Takes an attempt in; one that is in flight already is not launched again."""
        if not self._register.add(attempt):
            logger.info("delivered twice, goes on once attempt_id=%s", attempt.message.id)
            self._hub.dropped(attempt)
        elif self._parts is None:
            self._early.add(attempt, trouble=self._connection.trouble)
        else:
            self._parts.launcher.submit(attempt)

    def adopt(self, attempt: Attempt, pod: Mapping[str, Any]) -> None:
        """Takes an attempt back whose pod was found in the cluster."""
        parts = self._parts
        if parts is None or not self._register.add(attempt):
            self._hub.dropped(attempt)
            return
        metadata = pod["metadata"]
        attempt.pod, attempt.namespace, attempt.uid = metadata["name"], metadata["namespace"], metadata["uid"]
        attempt.created_at, attempt.created_mono = datetime.now(UTC), time.monotonic() - _age_s(pod)
        attempt.ours_mono = parts.sightings.listed_mono(attempt.namespace)
        self._register.move(attempt, "created")
        self._register.name_pod(attempt)
        logger.info("pod adopted attempt_id=%s pod=%s", attempt.message.id, attempt.pod)
        parts.sightings.on_pod(pod, "ADDED")

    def terminate(self, attempt: Attempt) -> None:
        """Ends an attempt because Celery says so (revoke, time limit); Celery has stored the result itself."""
        if attempt.stage == "waiting" and attempt in self._early:
            self._early.remove(attempt)
        elif attempt.stage == "waiting" and self._parts is not None:
            self._parts.launcher.withdraw(attempt)
        elif attempt.stage == "created" and self._parts is not None:
            self._register.remove(attempt)
            self._parts.sightings.close(attempt.uid or "")
            self._parts.janitor.kill(_ended_of(attempt, is_success=False))
            self._pump()
            return
        else:
            return  # being created: the revocation is remembered by Celery and comes again with `created`
        self._on_withdrawn(attempt)

    def closed(self, attempt: Attempt, *, is_success: bool) -> None:
        """The outcome is stored. Only now may the pod go."""
        self._register.remove(attempt)
        if attempt.uid is not None and self._parts is not None:
            self._parts.sightings.close(attempt.uid)
            self._parts.janitor.take(_ended_of(attempt, is_success=is_success))
        self._pump()

    def ask_whose(self, attempt: Attempt, go_on: Callable[[], None]) -> None:
        """After a standstill: goes on with an attempt if it is still ours, and forgets it without a word if not."""
        if self._parts is None:
            go_on()
        else:
            self._background.spawn(self._ask_whose(attempt, self._parts.ownership, go_on))

    async def _ask_whose(self, attempt: Attempt, whose: Ownership, go_on: Callable[[], None]) -> None:
        asked_mono = time.monotonic()
        if await whose.is_ours(attempt):
            attempt.ours_mono = asked_mono
            go_on()
            return
        logger.info("told by another dispatcher meanwhile attempt_id=%s pod=%s", attempt.message.id, attempt.pod)
        self._register.remove(attempt)
        self._hub.dropped(attempt)
        self._pump()

    def given_back(self, attempt: Attempt, put_back: Callable[[], None]) -> None:
        """Its message goes back into its queue by `put_back`, on the hub's side: nothing may stand in its way then.

        The pod goes at once, whatever the policy, to free its name.
        """
        self._background.spawn(self._give_back(attempt, put_back))

    async def _give_back(self, attempt: Attempt, put_back: Callable[[], None]) -> None:
        if self._claims is not None:
            await self._claims.release(attempt)
        self._register.remove(attempt)
        put_back()
        if attempt.uid is not None and self._parts is not None:
            self._parts.sightings.close(attempt.uid, is_returned=True)
            self._parts.janitor.delete(_ended_of(attempt, is_success=False))
        self._pump()

    def clean(self, pod: Mapping[str, Any], profile: QueueProfile, *, is_success: bool) -> None:
        """Cleans up behind a pod whose outcome had been stored by a dispatcher before us."""
        key = builder.key_of(pod)
        if self._parts is not None and key is not None:
            self._parts.sightings.close(uid_of(pod))
            self._parts.janitor.take(cleanup.ended_of(pod, attempt_id=key[0], profile=profile, is_success=is_success))

    def set_limit(self, limit: int) -> None:
        """Changes how many pods may be in flight."""
        self._limit = limit
        if self._parts is not None:
            self._parts.launcher.set_limit(limit)

    def stats(self) -> dict[str, Any]:
        """Facts for `inspect stats`. Called from the hub's thread: it only reads."""
        stages, parts = self._register.stages(), self._parts
        return {
            "pods-in-flight": stages["created"] + stages["creating"],
            "waiting": stages["waiting"],
            "ended-not-stored": stages["ended"],
            "api-requests": {" ".join(key): count for key, count in sorted(parts.cluster.counts.items())}
            if parts
            else {},
            "lists": parts.watcher.relists if parts else 0,
            "events-skipped": parts.watcher.skipped if parts else 0,
            "ends-untold": parts.roll_call.untold if parts else 0,
            "leftovers": parts.janitor.leftovers if parts else 0,
            "missing-permissions": list(self._missing),
            "limits": parts.capacity.ledger.trouble if parts else None,
            "trouble": self._connection.trouble or "; ".join((parts.watcher.trouble if parts else {}).values()) or None,
        }

    def _pump(self) -> None:
        if self._parts is not None:
            self._parts.launcher.pump()

    def _pump_soon(self) -> None:
        if self._parts is not None:
            self._parts.launcher.pump_soon()

    def _on_created(self, attempt: Attempt) -> None:
        attempt.created_mono = time.monotonic()
        if self._parts is not None:
            self._parts.sightings.note(attempt)
        self._hub.named(attempt)
        self._notes.when_stored(lambda: self._hub.created(attempt))

    def _on_withdrawn(self, attempt: Attempt) -> None:
        self._register.remove(attempt)
        self._notes.note(attempt, phase="Revoked")
        self._hub.withdrawn(attempt)

    def _on_dropped(self, attempt: Attempt, reason: str) -> None:
        """A delivery of what is done with, or another's: no second run, and no second result."""
        logger.info("delivery dropped attempt_id=%s reason=%s", attempt.message.id, reason)
        if reason == "Blocked":
            self._notes.note(attempt, phase="Revoked")
        self._register.remove(attempt)
        self._hub.dropped(attempt)

    def _log_saved(self, ended: cleanup.Ended, path: str) -> None:
        logger.debug("log saved attempt_id=%s path=%s", ended.attempt_id, path)


async def _end(tasks: Set["asyncio.Task[Any] | None"]) -> None:
    """Ends what still works with the API server, before the connections to it are closed."""
    rest = [task for task in tasks if task is not None]
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


def _ended_of(attempt: Attempt, *, is_success: bool) -> cleanup.Ended:
    """What the janitor needs to know of an attempt with a pod."""
    return cleanup.Ended(
        attempt_id=attempt.message.id,
        namespace=attempt.namespace,
        pod=attempt.pod,
        uid=attempt.uid,
        profile=attempt.profile,
        is_success=is_success,
        is_gone=attempt.is_pod_gone,
        wanted=attempt.wanted,
        epilogue=attempt.epilogue if attempt.wanted.logs.has_events else (),
    )


def _age_s(pod: Mapping[str, Any]) -> float:
    """How long ago a pod was made: a deadline that began with it does not begin anew with another dispatcher."""
    made_at = result_reader.time_of(pod["metadata"].get("creationTimestamp"))
    return 0.0 if made_at is None else max(0.0, (datetime.now(UTC) - made_at).total_seconds())
