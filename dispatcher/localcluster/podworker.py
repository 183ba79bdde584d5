"""One pod's life on the node: from its creation to the end of its last container. One small task each.

Started and stopped by the `kubelet`; runs containers through a `runtime`, decides statuses in `statuses`. Status writes
are batched, so a short pod is often never seen Running, as on a real cluster.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from dispatcher.localcluster import (
    bell,
    manifest,
    placement,
    recorder,
    registry,
    resources,
    runtime,
    statuses,
    store,
    times,
)

log = logging.getLogger(__name__)
BATCH_S = 0.1
"""A change that is not the last word waits so long for the next one before it is written."""
_RETRY_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Node:
    """The one machine."""

    name: str
    address: str = "127.0.0.1"
    max_pods: int = 110


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What all pods of a node share."""

    rules: registry.Registry
    run: runtime.Runtime
    node: Node
    events: recorder.Recorder
    slots: asyncio.Semaphore
    config_changed: bell.Bell


async def any_of(*bells: bell.Bell) -> None:
    """Waits for the first of some bells, or for the time to look again."""
    waits = [asyncio.ensure_future(one.wait(_RETRY_S)) for one in bells]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


@dataclass(eq=False)
class PodWorker:
    """One pod, from its creation to the end of its last container. `deleted`: its end is to be reported as such."""

    around: Surroundings
    first: store.Snapshot
    deleted: bool = False
    task: asyncio.Task[None] | None = None
    states: dict[str, statuses.State] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pod = manifest.read_pod(self.first.body)
        self.sandbox = self.around.run.sandbox(self.pod)
        self._init = self.pod.spec.init_containers or []
        self._main = self.pod.spec.containers or []
        self._situation = statuses.Situation(uid=self.first.uid, address=self.around.node.address)
        self._running: dict[str, runtime.Running] = {}
        self._stopping = False
        self._told: set[tuple[str, str]] = set()
        self._changed = bell.Bell()
        self._timers: dict[Callable[..., None], asyncio.TimerHandle] = {}

    # --- the story ---

    async def live(self) -> None:
        """The whole life; nothing that goes wrong with one pod touches another."""
        try:
            await self._until_fitting()
            async with self._slot():
                if not self._stopping:
                    self._begin()
                    await self._run()
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("pod failed inside the local cluster", extra={"pod": self.first.name})
            self._give_up()
        finally:
            self._cancel_timers()
        self._finish()

    async def _until_fitting(self) -> None:
        """Waits while the node is not what the pod asks for."""
        nodes = self.around.rules.store.of(resources.NODES)
        while not self._stopping:
            node = self.around.rules.get(resources.NODES, "", self.around.node.name)
            why = placement.why_not(self.pod, node.name, node.labels)
            if not why:
                return
            self._unschedulable(why)
            await any_of(nodes.changed, self._changed)

    def _slot(self) -> asyncio.Semaphore:
        """One of the pods that may run at once; a pod that must wait for its turn says so."""
        if self.around.slots.locked():
            limit = self.around.node.max_pods
            self._unschedulable(f"0/1 nodes are available: 1 Too many pods. The local cluster runs {limit} at once.")
        return self.around.slots

    def _unschedulable(self, why: str) -> None:
        if self.pod.spec.node_name:
            return  # it has a node already, only not this one: nobody will ever look at it
        if ("", why) not in self._told:
            self._told.add(("", why))
            self._event("FailedScheduling", why, warning=True)
        self._write(statuses.Situation(uid=self.first.uid, unschedulable=why))

    def _begin(self) -> None:
        """On the node: every container waits."""
        reason = "PodInitializing" if self._init else "ContainerCreating"
        for container in [*self._init, *self._main]:
            self.states[container.name] = statuses.Waiting(reason=reason)
        self._situation = statuses.Situation(
            uid=self.first.uid, address=self.around.node.address, started_at=times.now()
        )
        deadline_s = self.pod.spec.active_deadline_seconds
        if deadline_s is not None:
            self._later(deadline_s, self._expire)
        node = self.around.node.name
        current = self._current()
        if current is not None:
            status = statuses.status(self._seen(), before=current.read()["status"], now=times.now())
            self.around.rules.bind(current, node, status)
        self._event("Scheduled", f"Successfully assigned {self.first.namespace}/{self.first.name} to {node}")
        for note in self.sandbox.notes:
            self._event(note.reason, note.message)

    async def _run(self) -> None:
        if not await self._until_ready(self.sandbox.mount, container=""):
            return
        for container in self._init:
            await self._run_container(container)
            state = self.states[container.name]
            if self._stopping or not isinstance(state, statuses.Terminated) or state.exit_code:
                return
        if len(self._main) == 1:
            await self._run_container(self._main[0])
        else:
            await asyncio.gather(*(self._run_container(container) for container in self._main))

    async def _run_container(self, container: manifest.Container) -> None:
        if not await self._until_ready(lambda: self._start(container), container=container.name):
            return
        handle = self._running.get(container.name)
        if handle is None:
            return  # it failed to start, and says so
        ended = await handle.ended
        del self._running[container.name]
        self.states[container.name] = statuses.Terminated(
            exit_code=ended.exit_code,
            reason="Error" if ended.exit_code else "Completed",
            started_at=handle.started_at,
            finished_at=ended.at,
            message=ended.message,
        )
        self._write_soon()

    def _start(self, container: manifest.Container) -> None:
        try:
            handle = self.sandbox.start(container)
        except (runtime.StartFailed, OSError) as error:  # OSError: no disk, no descriptors, no processes left
            self._fail_to_start(container, str(error))
            return
        self._running[container.name] = handle
        self.states[container.name] = statuses.Running(started_at=handle.started_at)
        words = f'image "{container.image}" is not pulled: the container runs as a process of this machine'
        self._event("Pulled", words, container=container.name)
        self._event("Created", f"Created container: {container.name}", container=container.name)
        self._event("Started", f"Started container {container.name}", container=container.name)
        self._write_soon()

    def _fail_to_start(self, container: manifest.Container, why: str) -> None:
        self.states[container.name] = statuses.Terminated(
            exit_code=128, reason="StartError", started_at=None, finished_at=times.now(), message=why
        )
        self._event("Failed", f"Error: {why}", container=container.name, warning=True)

    async def _until_ready(self, attempt: Callable[[], None], *, container: str) -> bool:
        """Tries until it works; False when the pod is stopped before that."""
        while not self._stopping:
            try:
                attempt()
            except runtime.NotReady as error:
                self._wait_for(error, container)
                await any_of(self.around.config_changed, self._changed)
            else:
                return True
        return False

    def _wait_for(self, missing: runtime.NotReady, container: str) -> None:
        if container:
            self.states[container] = statuses.Waiting(reason=missing.reason, message=missing.message)
        reason = "Failed" if container else missing.reason
        words = f"Error: {missing.message}" if container else missing.message
        if (container, words) not in self._told:
            self._told.add((container, words))
            self._event(reason, words, container=container, warning=True)
        self._write(self._seen())

    # --- the end ---

    def stop(self, grace_s: float) -> None:
        """SIGTERM now, SIGKILL after `grace_s` seconds; a shorter period replaces a longer one."""
        if not self._stopping or grace_s == 0:
            for name, handle in self._running.items():
                self._event("Killing", f"Stopping container {name}", container=name)
                if grace_s:
                    handle.terminate()
        self._stopping = True
        self._later(grace_s, self._kill)
        self._changed.ring()

    async def vanish(self) -> None:
        """The object is gone: nothing of the pod may stay."""
        self._stopping = True
        self._cancel_timers()
        self._kill()
        self._changed.ring()
        if self.task is not None and not self.task.done():
            if self._running:
                await asyncio.wait({self.task}, timeout=_RETRY_S)
            self.task.cancel()
        await self.sandbox.remove()

    def _kill(self) -> None:
        for handle in self._running.values():
            handle.kill()

    def _expire(self) -> None:
        self._end_pod("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
        self._event("DeadlineExceeded", "Pod was active on the node longer than specified deadline", warning=True)
        self.stop(self.pod.spec.termination_grace_period_seconds or 0)

    def _give_up(self) -> None:
        """After an error of our own: nothing runs on, and the pod says whose fault it was."""
        self._kill()
        for name, state in self.states.items():
            if not isinstance(state, statuses.Terminated):
                self.states[name] = statuses.Terminated(
                    exit_code=137, reason="Error", started_at=None, finished_at=times.now()
                )
        self._end_pod("LocalClusterError", "the local cluster failed on this pod; its own log says why")

    def _end_pod(self, reason: str, message: str) -> None:
        self._situation = statuses.with_reason(self._situation, reason, message)

    def _finish(self) -> None:
        """The last word; a deleted pod goes now."""
        if self.states:
            self._write(self._seen())
        current = self._current()
        if current is not None and self.deleted:
            self.around.rules.finish_deletion(current)

    # --- telling ---

    def _seen(self) -> statuses.Situation:
        return statuses.Situation(
            init=[(container, self.states[container.name]) for container in self._init],
            main=[(container, self.states[container.name]) for container in self._main],
            uid=self._situation.uid,
            address=self._situation.address,
            started_at=self._situation.started_at,
            reason=self._situation.reason,
            message=self._situation.message,
        )

    def _current(self) -> store.Snapshot | None:
        found = self.around.rules.store.get(resources.PODS, self.first.namespace, self.first.name)
        return found if found is not None and found.uid == self.first.uid else None

    def _write(self, situation: statuses.Situation) -> None:
        current = self._current()
        if current is not None:
            status = statuses.status(situation, before=current.read()["status"], now=times.now())
            self.around.rules.set_status(current, status)

    def _write_soon(self) -> None:
        if self._write_now not in self._timers:
            self._later(BATCH_S, self._write_now)

    def _write_now(self) -> None:
        self._timers.pop(self._write_now, None)
        self._write(self._seen())

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Runs `action` once after `delay_s` seconds, or sooner if it was set for sooner."""
        loop = asyncio.get_running_loop()
        old = self._timers.get(action)
        if old is not None and old.when() <= loop.time() + delay_s:
            return
        if old is not None:
            old.cancel()
        self._timers[action] = loop.call_later(delay_s, action)

    def _cancel_timers(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _event(self, reason: str, message: str, *, container: str = "", warning: bool = False) -> None:
        self.around.events.record(self.pod, reason, message, container=container, warning=warning)
