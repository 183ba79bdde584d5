"""Carries out happenings on watches, pods and the node, at once or when the plan says so.

Everything goes the ways that the control plane has on a real cluster: statuses, conditions, events, deletes.
Only containers are killed directly.
"""

import asyncio
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from dispatcher.localcluster.faults import kinds, messages, plan, targets
from dispatcher.localcluster.objects import (
    conditions,
    manifest,
    nodes,
    notifier,
    placement,
    recorder,
    resources,
    store,
    times,
)
from dispatcher.localcluster.registry import registry

Json = dict[str, Any]
_FINAL = frozenset({"Succeeded", "Failed"})
_NO_EXECUTE = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}


class FaultController:
    """Does what the plan says. Belongs to the cluster's event loop."""

    def __init__(self, faults: plan.Plan, hit: targets.Targets) -> None:
        self.plan = faults
        self._targets = hit
        self._changed = notifier.Notifier()
        self._eviction: asyncio.TimerHandle | None = None
        self._controller = recorder.Recorder(hit.rules.store, component="node-controller", node=hit.node.name)

    # --- asking ---

    def add(self, faults: Sequence[kinds.Fault]) -> list[tuple[plan.Entry, list[str]]]:
        """Takes faults into the plan; what is due takes place now. Gives each with the names of what it met."""
        entries = [self.plan.add(fault, at=_now()) for fault in faults]
        met = self._act()
        self._look_again()
        return [(entry, met.get(entry.number, [])) for entry in entries]

    def play(self, script: kinds.Script) -> None:
        """Replaces the plan."""
        self.plan.clear()
        if script.seed is not None:
            self.plan.reseed(script.seed)
        self.add(script.faults)

    def remove(self, number: int) -> bool:
        """Takes one fault out; False where there is none of that number."""
        found = self.plan.remove(number)
        self._look_again()
        return found

    def clear(self) -> None:
        """Takes all faults out, and brings a lost node back."""
        self.plan.clear()
        self._restore_node()
        self._look_again()

    def _look_again(self) -> None:
        self._changed.notify()
        self._targets.pods.look_again()

    async def follow(self) -> None:
        """Lets happenings take place at their times. Runs until cancelled."""
        while True:
            self._act()
            due_at = self.plan.next_at()
            await self._changed.wait(None if due_at is None else max(0.0, due_at - _now()))

    # --- acting ---

    def _act(self) -> dict[int, list[str]]:
        return {number: self._do(happening) for number, happening in self.plan.due(at=_now())}

    def _do(self, happening: kinds.Happening) -> list[str]:
        """Lets one take place; gives the names of what it met."""
        match happening:
            case kinds.CutWatches() | kinds.SilenceWatches() | kinds.ExpireVersions():
                return self._on_watches(happening)
            case kinds.LoseNode():
                return self._lose_node(happening)
            case kinds.RestoreNode():
                return self._restore_node()
            case kinds.RemoveNode():
                return self._remove_node()
            case kinds.RestartApiserver():
                return self._restart_apiserver(happening)
        return [name for pod in self._choose(happening) if (name := self._on_pod(happening, pod))]

    def _on_watches(self, happening: kinds.CutWatches | kinds.SilenceWatches | kinds.ExpireVersions) -> list[str]:
        live = self._targets.live
        pattern = "*" if isinstance(happening, kinds.ExpireVersions) else happening.resource
        met = [stream.resource for stream in live.of(pattern)]
        if isinstance(happening, kinds.SilenceWatches):
            live.silence(pattern, float("inf") if happening.for_s is None else _now() + happening.for_s)
        elif isinstance(happening, kinds.ExpireVersions):
            live.gone_as_status = happening.how == "status"
            # Ended cleanly, so that the 410 is the answer to the next
            # watch; otherwise open watches get it as an ERROR event.
            if happening.how == "status":
                self._end_watches(pattern)
            self._targets.rules.store.expire()
        elif happening.how == "abort":
            live.abort(pattern)
        else:
            self._end_watches(pattern)
        return met

    def _restart_apiserver(self, happening: kinds.RestartApiserver) -> list[str]:
        """Gives what was watched."""
        met = [stream.resource for stream in self._targets.live.of()]
        # First the connections, then the faults that refuse new ones: a server that restarts drops both at once.
        self._targets.live.abort()
        for fault in messages.restart(happening):
            self.plan.add(fault, at=_now())
        return met

    def _end_watches(self, pattern: str) -> None:
        self._targets.live.end(pattern)
        for collection in self._targets.rules.store.collections.values():
            collection.changed.notify()

    # --- pods ---

    def _choose(self, happening: kinds.ToPods) -> list[store.Snapshot]:
        """Pods that match and have not ended; what needs a process takes only those that have one."""
        needs_process = isinstance(happening, kinds.Evict | kinds.Oom | kinds.Kill)
        found = [
            pod
            for pod in self._unfinished()
            if fnmatchcase(pod.name, happening.pod)
            and fnmatchcase(pod.namespace, happening.namespace)
            and (not needs_process or self._is_at_work(pod))
        ]
        return self.plan.choose(found, happening.pick)

    def _unfinished(self) -> list[store.Snapshot]:
        found = self._targets.rules.store.list(store.Match(resource=resources.PODS))
        return [pod for pod in found if pod.read()["status"].get("phase") not in _FINAL]

    def _is_at_work(self, pod: store.Snapshot) -> bool:
        worker = self._targets.pods.worker_of(pod.uid)
        return worker is not None and worker.is_at_work

    def _on_pod(self, happening: kinds.ToPods, pod: store.Snapshot) -> str:
        """Lets it happen to one pod; gives its name, or nothing where the pod is not what it takes."""
        rules, worker = self._targets.rules, self._targets.pods.worker_of(pod.uid)
        match happening:
            case kinds.Evict(reason=reason, message=message) if worker:
                rules.disrupt(pod, "TerminationByKubelet", message)
                worker.evict(reason, message)
            case kinds.Oom(container=container) if worker:
                return pod.name if worker.kill_container(container, for_memory=True) else ""
            case kinds.Kill(container=container) if worker:
                return pod.name if worker.kill_container(container) else ""
            case kinds.Preempt():
                words = "default-scheduler: preempting to accommodate a higher priority pod"
                marked = rules.disrupt(pod, "PreemptionByScheduler", words)
                self._tell(pod, "Preempted", f"Preempted by a pod on node {self._targets.node.name}")
                rules.delete(resources.PODS, marked, registry.DeleteOptions())
            case kinds.Delete(grace_s=grace_s):
                rules.delete(resources.PODS, pod, registry.DeleteOptions(grace_s=grace_s))
            case _:
                return ""
        return pod.name

    def _tell(self, pod: store.Snapshot, reason: str, message: str) -> None:
        self._controller.record(manifest.read_pod(pod.body), reason, message, warning=True)

    # --- the node ---

    def _lose_node(self, happening: kinds.LoseNode) -> list[str]:
        rules, name = self._targets.rules, self._targets.node.name
        node = rules.store.get(resources.NODES, "", name)
        if node is None:
            return []
        rules.store.put(resources.NODES, nodes.lost(node.read(), now=times.now()))
        # Before the pods' statuses: what the kubelet would write now must not overwrite them.
        self._targets.pods.cut_off()
        affected = self._on_node()
        for pod in affected:
            status = conditions.unready(pod.read()["status"], now=times.now())
            if happening.phase == "Unknown":
                words = f"Node {name} which was running pod {pod.name} is unresponsive"
                status |= {"phase": "Unknown", "reason": "NodeLost", "message": words}
            rules.set_status(pod, status)
            self._tell(pod, "NodeNotReady", "Node is not ready")
        if happening.evict_after_s is not None:
            loop = asyncio.get_running_loop()
            self._eviction = loop.call_later(happening.evict_after_s, self._evict_from_lost)
        return [pod.name for pod in affected]

    def _on_node(self) -> list[store.Snapshot]:
        name = self._targets.node.name
        return [pod for pod in self._unfinished() if pod.read()["spec"].get("nodeName") == name]

    def _evict_from_lost(self) -> None:
        """What the taint manager does: the pods are to go, and nobody is there to end them."""
        for pod in self._on_node():
            spec = manifest.read_pod(pod.body).spec
            # A toleration without seconds is for ever; one with them has run out by now: that is what was waited for.
            patient = [one for one in spec.tolerations or [] if one.get("tolerationSeconds") is None]
            if "deletionTimestamp" in pod.read()["metadata"] or placement.tolerates(patient, _NO_EXECUTE):
                continue
            words = "Taint manager: deleting due to NoExecute taint"
            marked = self._targets.rules.disrupt(pod, "DeletionByTaintManager", words)
            self._tell(pod, "TaintManagerEviction", f"Marking for deletion Pod {pod.namespace}/{pod.name}")
            self._targets.rules.delete(resources.PODS, marked, registry.DeleteOptions())

    def _remove_node(self) -> list[str]:
        """The node's object goes, and with it its pods; what runs on it nobody knows."""
        rules = self._targets.rules
        node = rules.store.get(resources.NODES, "", self._targets.node.name)
        if node is None:
            return []
        self._targets.pods.cut_off()
        gone = self._on_node()
        for pod in gone:
            marked = rules.disrupt(pod, "DeletionByPodGC", "PodGC: node no longer exists")
            # Pod GC marks a pod as failed before it deletes it by force (Kubernetes 1.26).
            failed = rules.set_status(marked, marked.read()["status"] | {"phase": "Failed"})
            rules.delete(resources.PODS, failed, registry.DeleteOptions(grace_s=0))
        rules.store.remove(resources.NODES, node)
        return [pod.name for pod in gone]

    def _restore_node(self) -> list[str]:
        rules, node = self._targets.rules, self._targets.node
        if self._eviction is not None:
            self._eviction.cancel()
        fresh = nodes.manifest(node, now=times.now())
        before = rules.store.get(resources.NODES, "", node.name)
        if before is None:
            rules.create(resources.NODES, "", fresh)
        elif before.read()["spec"].get("taints"):
            rules.store.put(resources.NODES, before.read() | {"spec": {}, "status": fresh["status"]})
        else:
            return []
        self._targets.pods.reconnect()
        return [node.name]


def _now() -> float:
    return asyncio.get_running_loop().time()
