"""One pod's life on the node: from its creation to the end of its last container. One small task each.

Started and stopped by the `kubelet`; runs its `containers`, decides statuses in `pod_status`, reports them through
`pod_report`. Sidecars are init containers with `restartPolicy: Always`: started in their order, not waited for, started
again when they end, and ended after the containers that they serve.
https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/
"""

import asyncio
import logging
from dataclasses import dataclass, replace

from dispatcher.localcluster.kubelet import containers, node_context, pod_report, pod_status, timers
from dispatcher.localcluster.objects import manifest, notifier, placement, resources, store, times

log = logging.getLogger(__name__)


@dataclass(eq=False)
class PodWorker:
    """One pod, from its creation to the end of its last container. `deleted`: its end is to be reported as such."""

    context: node_context.NodeContext
    first: store.Snapshot
    deleted: bool = False
    task: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        context = self.context
        self.pod = manifest.read_pod(self.first.body)
        self.sandbox = context.run.sandbox(self.pod)
        self._init = self.pod.spec.init_containers or []
        self._main = self.pod.spec.containers or []
        self._sidecars = [container.name for container in self._init if container.is_sidecar]
        self._situation = pod_status.Situation(uid=self.first.uid, address=context.node.address)
        self._due = timers.Timers()
        self._report = pod_report.PodReport(
            self.first,
            self.pod,
            rules=context.rules,
            events=context.events,
            line=context.line,
            due=self._due,
            seen=self._seen,
        )
        self._containers = containers.Containers(
            self.pod, context=context, sandbox=self.sandbox, due=self._due, report=self._report
        )

    # --- its life ---

    async def live(self) -> None:
        """The whole life; nothing that goes wrong with one pod touches another."""
        try:
            await self._until_fitting()
            async with self._slot():
                if not self._containers.is_stopping:
                    self._begin()
                    await self._run()
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("pod failed inside the local cluster", extra={"pod": self.first.name})
            self._give_up()
        finally:
            self._due.cancel()
        # A node that is cut off cannot report an end: the object waits for it as on a real cluster.
        await self.context.line.until_up()
        self._finish()

    async def _until_fitting(self) -> None:
        """Waits while the node is not what the pod asks for."""
        nodes = self.context.rules.store.of(resources.NODES)
        while not self._containers.is_stopping:
            why = self._why_not()
            if not why:
                return
            self._unschedulable(why)
            changes = (nodes.changed, self.context.changed, self._containers.changed)
            await notifier.any_of(*changes, timeout_s=node_context.RETRY_S)

    def _why_not(self) -> str:
        """Why no node takes the pod; empty where the one node does."""
        why = self.context.faults.why_not_scheduled(self.first.namespace, self.first.name)
        if why:
            return why
        node = self.context.rules.store.get(resources.NODES, "", self.context.node.name)
        if node is None:
            return "no nodes available to schedule pods"
        taints = node.read().get("spec", {}).get("taints") or ()
        return placement.why_not(self.pod, node.name, node.labels, taints)

    def _slot(self) -> asyncio.Semaphore:
        """One of the pods that may run at once; a pod that must wait for its turn says so."""
        if self.context.slots.locked():
            limit = self.context.node.max_pods
            self._unschedulable(f"0/1 nodes are available: 1 Too many pods. The local cluster runs {limit} at once.")
        return self.context.slots

    def _unschedulable(self, why: str) -> None:
        if self.pod.spec.node_name:
            return  # it has a node already, only not this one: nobody will ever look at it
        self._report.warn_once("FailedScheduling", why)
        self._report.write_unschedulable(why)

    def _begin(self) -> None:
        """On the node: every container waits."""
        self._containers.begin()
        self._situation = replace(self._situation, started_at=times.now())
        deadline_s = self.pod.spec.active_deadline_seconds
        if deadline_s is not None:
            self._due.later(deadline_s, self._expire)
        node = self.context.node.name
        self._report.bind(node)
        self._report.event("Scheduled", f"Successfully assigned {self.first.namespace}/{self.first.name} to {node}")
        for note in self.sandbox.notes:
            self._report.event(note.reason, note.message)

    async def _run(self) -> None:
        if not await self._containers.until_ready(self.sandbox.mount, container=""):
            return
        # Most pods are one container: it needs no task group, which would only cost.
        if len(self._main) == 1 and not self._init:
            await self._containers.run(self._main[0])
            return
        async with asyncio.TaskGroup() as group:
            if await self._initialize(group):
                await asyncio.gather(*(self._containers.run(container) for container in self._main))
            await self._end_sidecars()

    async def _initialize(self, group: asyncio.TaskGroup) -> bool:
        """Runs the init containers one after the other; False where the pod ends with them."""
        for container in self._init:
            if container.is_sidecar:
                group.create_task(self._containers.keep_running(container))
                await self._containers.until_started(container)
            else:
                await self._containers.run(container)
                state = self._containers.states[container.name]
                if not isinstance(state, pod_status.Terminated) or state.exit_code:
                    return False
            if self._containers.is_stopping:
                return False
        return True

    async def _end_sidecars(self) -> None:
        """SIGTERM in reverse order, each when the one after it has ended; SIGKILL when the grace period is over."""
        if not self._containers.is_stopping:
            # The task has ended by itself: the grace period begins now, for the sidecars alone.
            self._due.later(self._grace_s, self._containers.kill)
        self._containers.stop()
        for name in reversed(self._sidecars):
            self._containers.terminate(name)
            await self._containers.until_ended(name)

    # --- what may happen to it ---

    @property
    def is_at_work(self) -> bool:
        """On the node, and not ended."""
        return bool(self._containers.states) and self.task is not None and not self.task.done()

    def state_of(self, container: str) -> pod_status.State | None:
        """A container's state as of now, which the stored status may trail; None before the pod is on the node."""
        return self._containers.states.get(container)

    def evict(self, reason: str, message: str) -> None:
        """Ends the pod for a reason of the node: without grace."""
        self._end_pod(reason, message)
        self._report.event(reason, message, warning=True)
        self._containers.stop()
        self._containers.kill()

    def kill_container(self, name: str, *, for_memory: bool = False) -> bool:
        """SIGKILL for one container (empty: the first), by hand or for its memory; False where it does not run."""
        return self._containers.kill_one(name or self._main[0].name, for_memory=for_memory)

    def report_status(self) -> None:
        """Writes the status as of now, for instance when the node is connected again."""
        if self._containers.states:
            self._report.write()

    # --- the end ---

    @property
    def _grace_s(self) -> int:
        """The pod's own grace period; a negative one is as short as can be."""
        grace_s = self.pod.spec.termination_grace_period_seconds or 0
        return grace_s if grace_s >= 0 else 1

    def stop(self, grace_s: float) -> None:
        """SIGTERM now, SIGKILL after `grace_s` seconds; a shorter period replaces a longer one."""
        if not self._containers.is_stopping and grace_s:
            for name in tuple(self._containers.running):
                if name not in self._sidecars:  # they get SIGTERM when the others have ended
                    self._containers.terminate(name)
        # Also with 0: `Timers` keeps the shortest, so a second delete may only hurry.
        self._due.later(grace_s, self._containers.kill)
        self._containers.stop()

    async def remove(self) -> None:
        """The object is gone: nothing of the pod may stay."""
        self._due.cancel()
        self._containers.stop()
        self._containers.kill()
        if self.task is not None and not self.task.done():
            if self._containers.running:
                # Its process is killed and reaped first: files that go while it writes would come again.
                await asyncio.wait({self.task}, timeout=node_context.RETRY_S)
            self.task.cancel()
        await self.sandbox.remove()

    def _expire(self) -> None:
        self._end_pod("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
        self._report.event(
            "DeadlineExceeded", "Pod was active on the node longer than specified deadline", warning=True
        )
        self.stop(self._grace_s)

    def _give_up(self) -> None:
        """After an error of our own: nothing runs on, and the pod says whose fault it was."""
        self._containers.give_up()
        self._end_pod("LocalClusterError", "the local cluster failed on this pod; its own log says why")

    def _end_pod(self, reason: str, message: str) -> None:
        self._situation = replace(self._situation, reason=reason, message=message)

    def _finish(self) -> None:
        """The final status; the object of a deleted pod goes now."""
        self.report_status()
        current = self._report.current()
        if current is not None and self.deleted:
            # Only a pod whose deletion was asked for: another one stays as Succeeded or Failed.
            self.context.rules.finish_deletion(current)

    def _seen(self) -> pod_status.Situation:
        states = self._containers.states
        return replace(
            self._situation,
            init=[(container, states[container.name]) for container in self._init],
            main=[(container, states[container.name]) for container in self._main],
        )
