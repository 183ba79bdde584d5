"""One pod's life on the node: from its creation to the end of its last container. One small task each.

Started and stopped by the `kubelet`; runs containers through a `runtime`, decides statuses in `statuses`, tells them
through `podreport`. Sidecars are init containers with `restartPolicy: Always`: started in their order, not waited for,
started again when they end, and ended after the containers that they serve.
https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/
"""

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from dispatcher.localcluster import (
    bell,
    manifest,
    placement,
    podreport,
    recorder,
    registry,
    resources,
    runtime,
    statuses,
    store,
    timers,
    times,
)

log = logging.getLogger(__name__)
_RETRY_S = 10.0
_LONGEST_RESTART_S = 300


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


def restart_delays() -> Iterator[int]:
    """Seconds before each restart of a container: at once, then 10 and twice as long each time, up to five minutes."""
    return itertools.chain([0], (min(10 * 2**power, _LONGEST_RESTART_S) for power in itertools.count()))


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
        self._sidecars = {container.name: container for container in self._init if container.is_sidecar}
        self._situation = statuses.Situation(uid=self.first.uid, address=self.around.node.address)
        self._running: dict[str, runtime.Running] = {}
        self._stopping = False
        self._changed = bell.Bell()
        self._due = timers.Timers()
        around = self.around
        self._report = podreport.PodReport(
            self.first, self.pod, rules=around.rules, events=around.events, due=self._due, seen=self._seen
        )

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
            self._due.cancel()
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
            await bell.any_of(nodes.changed, self._changed, timeout_s=_RETRY_S)

    def _slot(self) -> asyncio.Semaphore:
        """One of the pods that may run at once; a pod that must wait for its turn says so."""
        if self.around.slots.locked():
            limit = self.around.node.max_pods
            self._unschedulable(f"0/1 nodes are available: 1 Too many pods. The local cluster runs {limit} at once.")
        return self.around.slots

    def _unschedulable(self, why: str) -> None:
        if self.pod.spec.node_name:
            return  # it has a node already, only not this one: nobody will ever look at it
        self._report.warn_once("FailedScheduling", why)
        self._report.write(statuses.Situation(uid=self.first.uid, unschedulable=why))

    def _begin(self) -> None:
        """On the node: every container waits."""
        reason = "PodInitializing" if self._init else "ContainerCreating"
        for container in [*self._init, *self._main]:
            self.states[container.name] = statuses.Waiting(reason=reason)
        self._situation = replace(self._situation, started_at=times.now())
        deadline_s = self.pod.spec.active_deadline_seconds
        if deadline_s is not None:
            self._due.later(deadline_s, self._expire)
        node = self.around.node.name
        self._report.bind(node)
        self._report.event("Scheduled", f"Successfully assigned {self.first.namespace}/{self.first.name} to {node}")
        for note in self.sandbox.notes:
            self._report.event(note.reason, note.message)

    async def _run(self) -> None:
        if not await self._until_ready(self.sandbox.mount, container=""):
            return
        if len(self._main) == 1 and not self._init:
            await self._run_container(self._main[0])
            return
        async with asyncio.TaskGroup() as group:
            if await self._initialize(group):
                await asyncio.gather(*(self._run_container(container) for container in self._main))
            await self._end_sidecars()

    async def _initialize(self, group: asyncio.TaskGroup) -> bool:
        """Runs the init containers one after the other; False where the pod ends with them."""
        for container in self._init:
            if container.is_sidecar:
                group.create_task(self._keep_running(container))
                await self._until_started(container)
            else:
                await self._run_container(container)
                state = self.states[container.name]
                if not isinstance(state, statuses.Terminated) or state.exit_code:
                    return False
            if self._stopping:
                return False
        return True

    async def _run_container(self, container: manifest.Container) -> None:
        if not await self._until_ready(lambda: self._start(container), container=container.name):
            return
        handle = self._running.get(container.name)
        if handle is None:
            return  # it failed to start, and says so
        ended = await handle.ended
        del self._running[container.name]
        before = self.states[container.name]
        self.states[container.name] = statuses.Terminated(
            exit_code=ended.exit_code,
            reason="Error" if ended.exit_code else "Completed",
            started_at=handle.started_at,
            finished_at=ended.at,
            message=ended.message,
            restarts=before.restarts,
            last=before.last,
        )
        self._report.write_soon()

    def _start(self, container: manifest.Container) -> None:
        before = statuses.next_run(self.states[container.name])
        try:
            handle = self.sandbox.start(container)
        except (runtime.StartFailed, OSError) as error:  # OSError: no disk, no descriptors, no processes left
            self._fail_to_start(container, str(error), before)
            return
        self._running[container.name] = handle
        self.states[container.name] = statuses.Running(
            started_at=handle.started_at, restarts=before.restarts, last=before.last
        )
        words = f'image "{container.image}" is not pulled: the container runs as a process of this machine'
        self._report.event("Pulled", words, container=container.name)
        self._report.event("Created", f"Created container: {container.name}", container=container.name)
        self._report.event("Started", f"Started container {container.name}", container=container.name)
        self._report.write_soon()

    def _fail_to_start(self, container: manifest.Container, why: str, before: statuses.Waiting) -> None:
        self.states[container.name] = statuses.Terminated(
            exit_code=128,
            reason="StartError",
            started_at=None,
            finished_at=times.now(),
            message=why,
            restarts=before.restarts,
            last=before.last,
        )
        self._report.event("Failed", f"Error: {why}", container=container.name, warning=True)

    async def _until_ready(self, attempt: Callable[[], None], *, container: str) -> bool:
        """Tries until it works; False when the pod is stopped before that."""
        while not self._stopping:
            try:
                attempt()
            except runtime.NotReady as error:
                self._wait_for(error, container)
                await bell.any_of(self.around.config_changed, self._changed, timeout_s=_RETRY_S)
            else:
                self._changed.ring()
                return True
        return False

    def _wait_for(self, missing: runtime.NotReady, container: str) -> None:
        if container:
            before = self.states[container]
            self.states[container] = statuses.Waiting(
                reason=missing.reason, message=missing.message, restarts=before.restarts, last=before.last
            )
        reason = "Failed" if container else missing.reason
        words = f"Error: {missing.message}" if container else missing.message
        self._report.warn_once(reason, words, container=container)
        self._report.write()

    # --- sidecars ---

    async def _keep_running(self, container: manifest.Container) -> None:
        """Starts a sidecar again whenever it ends, later each time, until the pod stops."""
        for delay_s in restart_delays():
            await self._run_container(container)
            if self._stopping:
                return
            if delay_s:
                await self._back_off(container, delay_s)

    async def _back_off(self, container: manifest.Container, delay_s: float) -> None:
        words = f"back-off {delay_s:g}s restarting failed container={container.name} pod={self.first.name}"
        ended = self.states[container.name]
        if isinstance(ended, statuses.Terminated):
            self.states[container.name] = statuses.Waiting(
                reason="CrashLoopBackOff", message=words, restarts=ended.restarts, last=ended
            )
        self._report.event("BackOff", words, container=container.name, warning=True)
        self._report.write_soon()
        end = asyncio.get_running_loop().time() + delay_s
        while not self._stopping and (left_s := end - asyncio.get_running_loop().time()) > 0:
            await self._changed.wait(left_s)

    async def _until_started(self, container: manifest.Container) -> None:
        while not self._stopping and not statuses.has_started(self.states[container.name]):
            await self._changed.wait(_RETRY_S)

    async def _end_sidecars(self) -> None:
        """SIGTERM in reverse order, each when the one after it has ended; SIGKILL when the grace period is over."""
        if not self._stopping:
            self._due.later(self.pod.spec.termination_grace_period_seconds or 0, self._kill)
        self._stopping = True
        self._changed.ring()
        for name in reversed(self._sidecars):
            handle = self._running.get(name)
            if handle is not None:
                self._terminate(name, handle)
                await asyncio.wait({handle.ended})

    # --- the end ---

    def stop(self, grace_s: float) -> None:
        """SIGTERM now, SIGKILL after `grace_s` seconds; a shorter period replaces a longer one."""
        if not self._stopping and grace_s:
            for name, handle in self._running.items():
                if name not in self._sidecars:  # they are told when the others have ended
                    self._terminate(name, handle)
        self._stopping = True
        self._due.later(grace_s, self._kill)
        self._changed.ring()

    def _terminate(self, name: str, handle: runtime.Running) -> None:
        self._report.event("Killing", f"Stopping container {name}", container=name)
        handle.terminate()

    async def vanish(self) -> None:
        """The object is gone: nothing of the pod may stay."""
        self._stopping = True
        self._due.cancel()
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
        self._report.event(
            "DeadlineExceeded", "Pod was active on the node longer than specified deadline", warning=True
        )
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
        self._situation = replace(self._situation, reason=reason, message=message)

    def _finish(self) -> None:
        """The last word; a deleted pod goes now."""
        if self.states:
            self._report.write()
        current = self._report.current()
        if current is not None and self.deleted:
            self.around.rules.finish_deletion(current)

    def _seen(self) -> statuses.Situation:
        return replace(
            self._situation,
            init=[(container, self.states[container.name]) for container in self._init],
            main=[(container, self.states[container.name]) for container in self._main],
        )
