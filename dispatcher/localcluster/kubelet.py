"""The kubelet: hears of pods through the registry's hooks, and has a worker for each of them."""

import asyncio

from dispatcher.localcluster import (
    bell,
    logs,
    podworker,
    recorder,
    registry,
    resources,
    runtime,
    statuses,
    store,
)


class Kubelet:
    """All pods of the node."""

    def __init__(
        self, rules: registry.Registry, run: runtime.Runtime, *, node: podworker.Node, events: recorder.Recorder
    ) -> None:
        self._rules = rules
        self._around = podworker.Surroundings(
            rules=rules,
            run=run,
            node=node,
            events=events,
            slots=asyncio.Semaphore(node.max_pods),
            config_changed=bell.Bell(),
        )
        self._workers: dict[str, podworker.PodWorker] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        rules.hooks.pod_created = self._created
        rules.hooks.pod_deleting = self._deleting
        rules.hooks.pod_gone = self._gone

    def log_of(self, uid: str, container: str, *, previous: bool = False) -> logs.ContainerLog | None:
        """What a container of a pod has printed, in this run or in the one before; None without such a run."""
        worker = self._workers.get(uid)
        return worker.sandbox.log(container, previous=previous) if worker else None

    def state_of(self, uid: str, container: str) -> statuses.State | None:
        """A container's state as of now, which the stored status may trail."""
        worker = self._workers.get(uid)
        return worker.states.get(container) if worker else None

    async def follow_config(self) -> None:
        """Wakes pods that wait for a ConfigMap or Secret when one of them changes. Runs until cancelled."""
        maps, secrets = (self._rules.store.of(resource) for resource in (resources.CONFIGMAPS, resources.SECRETS))
        while True:
            await bell.any_of(maps.changed, secrets.changed)
            self._around.config_changed.ring()

    async def close(self, timeout_s: float) -> None:
        """Ends all pods: SIGTERM, and SIGKILL after `timeout_s` seconds."""
        for worker in self._workers.values():
            worker.stop(timeout_s)
        tasks = {worker.task for worker in self._workers.values() if worker.task and not worker.task.done()}
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s + 1)
        for task in tasks | self._tasks:
            task.cancel()

    def _created(self, snapshot: store.Snapshot) -> None:
        worker = podworker.PodWorker(self._around, snapshot)
        self._workers[snapshot.uid] = worker
        worker.task = asyncio.get_running_loop().create_task(worker.live())

    def _deleting(self, snapshot: store.Snapshot, grace_s: int) -> None:
        worker = self._workers.get(snapshot.uid)
        if worker is not None:
            worker.deleted = True
            worker.stop(grace_s)

    def _gone(self, snapshot: store.Snapshot) -> None:
        worker = self._workers.pop(snapshot.uid, None)
        if worker is not None:
            task = asyncio.get_running_loop().create_task(worker.vanish())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
