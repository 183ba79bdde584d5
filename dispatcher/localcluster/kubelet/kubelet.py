"""The kubelet: is notified of pods through the registry's hooks, and has a worker for each of them."""

import asyncio

from dispatcher.localcluster.kubelet import link, node_context, pod_status, pod_worker, runtime
from dispatcher.localcluster.objects import container_log, fault_points, nodes, notifier, recorder, resources, store
from dispatcher.localcluster.registry import registry


class Kubelet:
    """All pods of the node."""

    def __init__(
        self,
        rules: registry.Registry,
        run: runtime.Runtime,
        *,
        node: nodes.Node,
        events: recorder.Recorder,
        faults: fault_points.OfPods,
    ) -> None:
        self._rules = rules
        self._line = link.Link()
        self._vanished: list[pod_worker.PodWorker] = []
        """Pods whose objects went while the node was cut off: their processes run on until it is connected again."""
        self._context = node_context.NodeContext(
            rules=rules,
            run=run,
            node=node,
            events=events,
            slots=asyncio.Semaphore(node.max_pods),
            line=self._line,
            faults=faults,
        )
        self._workers: dict[str, pod_worker.PodWorker] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        rules.hooks.pod_created = self._created
        rules.hooks.pod_deleting = self._deleting
        rules.hooks.pod_gone = self._gone

    def log_of(self, uid: str, container: str, *, previous: bool = False) -> container_log.ContainerLog | None:
        """What a container of a pod has printed, in this run or in the one before; None without such a run."""
        worker = self._workers.get(uid)
        return worker.sandbox.log(container, previous=previous) if worker else None

    def waiting_reason(self, uid: str, container: str) -> str | None:
        """Why a container has not started, as of now: the stored status may trail. None once it has."""
        worker = self._workers.get(uid)
        state = worker.state_of(container) if worker else None
        if state is None:
            return "ContainerCreating"
        return state.reason if isinstance(state, pod_status.Waiting) else None

    async def follow_config(self) -> None:
        """Wakes pods that wait for a ConfigMap or Secret when one of them changes. Runs until cancelled."""
        maps, secrets = (self._rules.store.of(resource) for resource in (resources.CONFIGMAPS, resources.SECRETS))
        while True:
            await notifier.any_of(maps.changed, secrets.changed)
            self._context.changed.notify()

    def look_again(self) -> None:
        """Faults came or went: pods that wait look again."""
        self._context.changed.notify()

    def worker_of(self, uid: str) -> pod_worker.PodWorker | None:
        """Who looks after a pod."""
        return self._workers.get(uid)

    def cut_off(self) -> None:
        """From now on the node receives and reports nothing; its containers run on."""
        self._line.set(up=False)

    def reconnect(self) -> None:
        """Connected again: reports how its pods are, ends those that were deleted meanwhile."""
        self._line.set(up=True)
        for worker in tuple(self._workers.values()):
            current = self._rules.store.get(resources.PODS, worker.first.namespace, worker.first.name)
            metadata = current.read()["metadata"] if current is not None else {}
            if "deletionTimestamp" in metadata and current is not None:
                self._deleting(current, metadata.get("deletionGracePeriodSeconds") or 0)
            worker.report_status()
        vanished, self._vanished = self._vanished, []
        for worker in vanished:
            self._remove(worker)

    async def close(self, timeout_s: float) -> None:
        """Ends all pods: SIGTERM, and SIGKILL after `timeout_s` seconds."""
        # A node that is cut off would wait for its line for ever, and its processes with it.
        self._line.set(up=True)
        workers = [*self._workers.values(), *self._vanished]
        for worker in workers:
            worker.stop(timeout_s)
        tasks = {worker.task for worker in workers if worker.task and not worker.task.done()}
        # One second more than they have: SIGKILL comes at `timeout_s`, and reaping takes a moment.
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s + 1)
        for task in tasks | self._tasks:
            task.cancel()

    def _created(self, snapshot: store.Snapshot) -> None:
        worker = pod_worker.PodWorker(self._context, snapshot)
        self._workers[snapshot.uid] = worker
        worker.task = asyncio.get_running_loop().create_task(worker.live())

    def _deleting(self, snapshot: store.Snapshot, grace_s: int) -> None:
        worker = self._workers.get(snapshot.uid)
        # While it is cut off the node hears nothing: the deletion is taken up by `reconnect`.
        if worker is not None and self._line.up:
            worker.deleted = True
            worker.stop(grace_s)

    def _gone(self, snapshot: store.Snapshot) -> None:
        worker = self._workers.pop(snapshot.uid, None)
        if worker is not None and self._line.up:
            self._remove(worker)
        elif worker is not None:
            self._vanished.append(worker)

    def _remove(self, worker: pod_worker.PodWorker) -> None:
        task = asyncio.get_running_loop().create_task(worker.remove())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
