"""The containers of one pod: started, waited for, started again where they are sidecars, and how each of them is.

Used by the pod's `pod_worker`, which decides their order; reported through `pod_report`.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

from dispatcher.localcluster.kubelet import node_context, pod_report, pod_status, runtime, timers
from dispatcher.localcluster.objects import manifest, notifier, times

_LONGEST_RESTART_S = 300
_PULL_BACK_OFF_S = 1.0


def restart_delays() -> Iterator[int]:
    """Seconds before each restart of a container: at once, then 10 and twice as long each time, up to five minutes."""
    return itertools.chain([0], (min(10 * 2**power, _LONGEST_RESTART_S) for power in itertools.count()))


class Containers:
    """One pod's containers. `changed` notifies whenever one of them started, or the pod stops."""

    def __init__(
        self,
        pod: manifest.Pod,
        *,
        context: node_context.NodeContext,
        sandbox: runtime.Sandbox,
        due: timers.Timers,
        report: pod_report.PodReport,
    ) -> None:
        self.states: dict[str, pod_status.State] = {}
        self.running: dict[str, runtime.RunningContainer] = {}
        self.is_stopping = False
        self.changed = notifier.Notifier()
        self._pod = pod
        self._context = context
        self._sandbox = sandbox
        self._due = due
        self._report = report
        self._out_of_memory: set[str] = set()

    def begin(self) -> None:
        """On the node: every container waits."""
        init = self._pod.spec.init_containers or []
        reason = "PodInitializing" if init else "ContainerCreating"
        for container in [*init, *(self._pod.spec.containers or [])]:
            self.states[container.name] = pod_status.Waiting(reason=reason)

    def stop(self) -> None:
        """Nothing is started from now on."""
        self.is_stopping = True
        self.changed.notify()

    # --- one run ---

    async def run(self, container: manifest.Container) -> None:
        """Starts a container once everything is there that it needs, and waits for its end."""
        if not await self.until_ready(lambda: self._start(container), container=container.name):
            return
        handle = self.running.get(container.name)
        if handle is None:
            return  # it failed to start, and says so
        ended = await handle.ended
        del self.running[container.name]
        before = self.states[container.name]
        reason = "OOMKilled" if container.name in self._out_of_memory else "Error" if ended.exit_code else "Completed"
        self._out_of_memory.discard(container.name)
        self.states[container.name] = pod_status.Terminated(
            exit_code=ended.exit_code,
            reason=reason,
            started_at=handle.started_at,
            finished_at=ended.at,
            message=ended.message,
            restarts=before.restarts,
            last=before.last,
        )
        self._report.write_soon()

    async def until_ready(self, attempt: Callable[[], None], *, container: str) -> bool:
        """Tries until it works; False when the pod is stopped before that."""
        while not self.is_stopping:
            try:
                attempt()
            except runtime.NotReady as error:
                self._wait_for(error, container)
                # The time-out is for what nobody announces, such as a file on the host.
                await notifier.any_of(self._context.changed, self.changed, timeout_s=node_context.RETRY_S)
            else:
                self.changed.notify()
                return True
        return False

    def _wait_for(self, missing: runtime.NotReady, container: str) -> None:
        if container:
            before = self.states[container]
            self.states[container] = pod_status.Waiting(
                reason=missing.reason, message=missing.message, restarts=before.restarts, last=before.last
            )
        reason = "Failed" if container else missing.reason
        said = f"Error: {missing.message}" if container else missing.message
        self._report.warn_once(reason, said, container=container)
        self._report.write()

    def _start(self, container: manifest.Container) -> None:
        self._pull(container)
        before = pod_status.next_run(self.states[container.name])
        try:
            handle = self._sandbox.start(container)
        except (runtime.StartFailed, OSError) as error:  # OSError: no disk, no descriptors, no processes left
            self._fail_to_start(container, str(error), before)
            return
        self.running[container.name] = handle
        self.states[container.name] = pod_status.Running(
            started_at=handle.started_at, restarts=before.restarts, last=before.last
        )
        pulled = f'image "{container.image}" is not pulled: the container runs as a process of this machine'
        self._report.event("Pulled", pulled, container=container.name)
        self._report.event("Created", f"Created container: {container.name}", container=container.name)
        self._report.event("Started", f"Started container {container.name}", container=container.name)
        self._report.write_soon()

    def _fail_to_start(self, container: manifest.Container, why: str, before: pod_status.Waiting) -> None:
        self.states[container.name] = pod_status.Terminated(
            exit_code=128,
            reason="StartError",
            started_at=None,
            finished_at=times.now(),
            message=why,
            restarts=before.restarts,
            last=before.last,
        )
        self._report.event("Failed", f"Error: {why}", container=container.name, warning=True)

    def _pull(self, container: manifest.Container) -> None:
        """Nothing is pulled; raises NotReady `ErrImagePull` where a fault says that it cannot be."""
        why = self._context.faults.why_not_pulled(container.image or "")
        if not why:
            return
        # Seen as ErrImagePull for a moment first, as on a kubelet: clients must know both reasons.
        self._due.later(_PULL_BACK_OFF_S, lambda: self._back_off_pull(container, why))
        raise runtime.NotReady("ErrImagePull", why)

    def _back_off_pull(self, container: manifest.Container, why: str) -> None:
        state = self.states[container.name]
        if isinstance(state, pod_status.Waiting) and state.reason == "ErrImagePull":
            message = f'Back-off pulling image "{container.image}": ErrImagePull: {why}'
            self.states[container.name] = replace(state, reason="ImagePullBackOff", message=message)
            self._report.warn_once("BackOff", message, container=container.name)
            self._report.write()

    # --- many runs ---

    async def keep_running(self, container: manifest.Container) -> None:
        """Starts a sidecar again whenever it ends, later each time, until the pod stops."""
        for delay_s in restart_delays():
            await self.run(container)
            if self.is_stopping:
                return
            if delay_s:
                await self._back_off(container, delay_s)

    async def _back_off(self, container: manifest.Container, delay_s: float) -> None:
        name = self._pod.metadata.name
        why = f"back-off {delay_s:g}s restarting failed container={container.name} pod={name}"
        ended = self.states[container.name]
        if isinstance(ended, pod_status.Terminated):
            self.states[container.name] = pod_status.Waiting(
                reason="CrashLoopBackOff", message=why, restarts=ended.restarts, last=ended
            )
        self._report.event("BackOff", why, container=container.name, warning=True)
        self._report.write_soon()
        end = asyncio.get_running_loop().time() + delay_s
        while not self.is_stopping and (left_s := end - asyncio.get_running_loop().time()) > 0:
            await self.changed.wait(left_s)

    async def until_started(self, container: manifest.Container) -> None:
        """Returns once a sidecar runs, or has run, or the pod stops."""
        while not self.is_stopping and not pod_status.has_started(self.states[container.name]):
            await self.changed.wait(node_context.RETRY_S)

    # --- ends ---

    def terminate(self, name: str) -> None:
        """SIGTERM, where it runs."""
        handle = self.running.get(name)
        if handle is not None:
            self._report.event("Killing", f"Stopping container {name}", container=name)
            handle.terminate()

    async def until_ended(self, name: str) -> None:
        """Returns once this run of a container is over."""
        handle = self.running.get(name)
        if handle is not None:
            await asyncio.wait({handle.ended})

    def kill(self) -> None:
        """SIGKILL to all."""
        for handle in self.running.values():
            handle.kill()

    def kill_one(self, name: str, *, for_memory: bool) -> bool:
        """SIGKILL to one of them; False where it does not run."""
        handle = self.running.get(name)
        if handle is None:
            return False
        if for_memory:
            self._out_of_memory.add(name)
        handle.kill()
        return True

    def give_up(self) -> None:
        """After an error of our own: nothing runs on."""
        self.kill()
        for name, state in self.states.items():
            if not isinstance(state, pod_status.Terminated):
                self.states[name] = pod_status.Terminated(
                    exit_code=137, reason="Error", started_at=None, finished_at=times.now()
                )
