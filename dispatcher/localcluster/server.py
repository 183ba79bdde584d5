"""The local cluster as a whole: wires the parts, starts, says where it is, stops within seconds.

`run` is the program, `LocalCluster` the same as an async context manager for tests. One home folder, one cluster.
"""

import asyncio
import base64
import contextlib
import errno
import functools
import logging
import os
import signal
import ssl
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from dispatcher.localcluster import endpoints, home, kubeconfig
from dispatcher.localcluster.apiserver import api, stats, streams, verbs
from dispatcher.localcluster.faults import controller, injection, kinds, plan, targets
from dispatcher.localcluster.kubelet import environment, instant, kubelet, processes, runtime
from dispatcher.localcluster.objects import fault_points, nodes, recorder, resources, store, times
from dispatcher.localcluster.registry import garbage, namespaces, registry

log = logging.getLogger(__name__)
ClusterError = home.ClusterError
HOST = "127.0.0.1"
STOP_S = 2.0
"""How long pods may take to end after SIGTERM when the cluster stops."""
_BACKLOG = 1024
_LINE_BYTES = 65_536
"""Selectors of many names make long addresses."""


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """How to run a local cluster."""

    home: Path
    port: int = 0
    """0: the port of the last time if it is free, else any free one."""
    node: str = "local"
    runtime: str = "processes"
    """`processes`; `instant` ends pods at once without a process; `hold` keeps them Running without one."""
    python: Path = Path(sys.executable)
    """The interpreter that pods find as `python`, as an image would bring one."""
    lasts_s: float = 0.0
    """With `instant`: pods stay Running for so long before they end."""
    message: str = ""
    """Termination message of instant pods."""
    max_pods: int | None = None
    """Pods that run at once; None: 250 with processes, no limit without."""
    history_changes: int = store.HISTORY_CHANGES
    """Changes per resource that a watch can go back to."""
    bookmark_s: float = 10.0
    gone_as_status: bool = False
    """Answer a watch from a forgotten version with HTTP 410 instead of an ERROR event (servers do either)."""
    faults: bool = False
    """Whether faults may be asked for, at `/podyard/faults` and by `LocalCluster.faults` (docs/testing.md)."""
    faults_file: Path | None = None
    """Faults to begin with, and to follow; turns faults on."""


class LocalCluster:
    """A running local cluster: `async with LocalCluster(ClusterOptions(home=...)) as cluster: cluster.url`."""

    def __init__(self, options: ClusterOptions) -> None:
        self.options = options
        self.token = ""
        self.url = ""
        self.faults: controller.FaultController | None = None
        """Faults, where they are on."""
        self._stack = contextlib.AsyncExitStack()

    @property
    def kubeconfig(self) -> Path:
        """Where the kubeconfig is while the cluster accepts requests."""
        return self.options.home / "kubeconfig"

    async def __aenter__(self) -> Self:
        # A start that fails half way undoes its steps; `pop_all` keeps them once it has succeeded.
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        """Each step registers how it is undone; stopping goes the way back: kubeconfig, API, pods, lock."""
        options = self.options
        stack.enter_context(home.lock(options.home))
        # What an earlier life left speaks of a port that may be another's by now.
        self.kubeconfig.unlink(missing_ok=True)
        # The same token and certificate as before, so that a kubeconfig that somebody has read stays good.
        past = home.read_identity(options.home) or home.new_identity()
        self.token = past.token
        objects = store.Store(history_changes=options.history_changes)
        rules = registry.Registry(objects)
        run = _runtime(options, objects)
        await run.open()
        stack.push_async_callback(run.close)
        planned = plan.Plan() if options.faults or options.faults_file else None
        faults = fault_points.NoFaults() if planned is None else injection.Injection(planned)
        node = _node(options)
        rules.create(resources.NODES, "", nodes.manifest(node, now=times.now()))
        events = recorder.Recorder(objects, component="podyard-local", node=node.name)
        pods = kubelet.Kubelet(rules, run, node=node, events=events, faults=faults)
        # Before all that may create pods: closing goes the other way, so nothing is created while they end.
        stack.push_async_callback(pods.close, STOP_S)
        _keep(stack, pods.follow_config())
        _keep(stack, garbage.Garbage(rules).collect())
        _keep(stack, namespaces.Namespaces(rules).empty())
        live, counted = streams.Streams(gone_as_status=options.gone_as_status), stats.Stats()
        does = verbs.Verbs(rules, pods, live=live, faults=faults, bookmark_s=options.bookmark_s)
        if planned is not None:
            hit = targets.Targets(rules=rules, pods=pods, live=live, node=node)
            self.faults = controller.FaultController(planned, hit)
            _play(stack, self.faults, options.faults_file)
        own = endpoints.Endpoints(counted, live, self.faults)
        http = api.Api(does, token=self.token, faults=faults, counted=counted, own=own.answer)
        # A port that was asked for is the only one: who asked has written it down elsewhere.
        ports = [options.port] if options.port else [past.port, 0]
        port = await _listen(stack, http, ports=ports, tls=home.tls(options.home, past))
        http.address = f"{HOST}:{port}"
        self.url = f"https://{HOST}:{port}"
        home.keep_identity(options.home, past, port=port)
        text = kubeconfig.text(address=self.url, token=self.token, authority=past.authority)
        # Last: whoever finds the file can connect.
        kubeconfig.write_private(self.kubeconfig, text)
        stack.callback(self.kubeconfig.unlink, missing_ok=True)


def run(
    *,
    home: Path,
    port: int = 0,
    node: str = "local",
    ready: Callable[[str], None] = lambda line: None,  # nobody listens
    until_eof: bool = False,
    **more: Any,
) -> None:
    """Runs a local cluster until SIGINT or SIGTERM; `ready` gets one line. Raises home.ClusterError.

    `until_eof`: also until the standard input, a pipe, is closed: with the end of the program that holds it.
    """
    asyncio.run(_run(ClusterOptions(home=home, port=port, node=node, **more), ready, until_eof=until_eof))


async def _run(options: ClusterOptions, ready: Callable[[str], None], *, until_eof: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    if until_eof:
        # Nothing is ever sent: the pipe is read only for its end.
        loop.add_reader(sys.stdin.fileno(), lambda: None if os.read(sys.stdin.fileno(), 512) else stop.set())
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with LocalCluster(options) as cluster:
        kind = {"processes": "pods are processes of this user, without isolation"}.get(
            options.runtime, f"no process is started ({options.runtime})"
        )
        ready(f"local cluster ready at {cluster.url}, kubeconfig {cluster.kubeconfig}; {kind}")
        await stop.wait()
        # Closed input is readable for ever: a reader that stayed would keep the loop busy while it stops.
        if until_eof:
            loop.remove_reader(sys.stdin.fileno())


def _runtime(options: ClusterOptions, objects: store.Store) -> runtime.Runtime:
    if options.runtime != "processes":
        lasts_s = None if options.runtime == "hold" else options.lasts_s
        return instant.InstantRuntime(lasts_s=lasts_s, message=options.message)
    place = environment.Place(node=options.node, host_ip=HOST, pod_ip=HOST)
    # A real path: the guardian finds processes of pods by this text in their environment.
    folder = options.home.resolve() / "pods"
    lookup = functools.partial(config_data, objects)
    return processes.ProcessRuntime(folder, place=place, lookup=lookup, python=options.python.absolute())


def config_data(objects: store.Store, namespace: str, kind: str, name: str) -> Mapping[str, str] | None:
    """The data of a ConfigMap or Secret as text, or None; bytes that are no UTF-8 survive as surrogates."""
    resource = resources.CONFIGMAPS if kind == "configmap" else resources.SECRETS
    found = objects.get(resource, namespace, name)
    if found is None:
        return None
    thing = found.read()
    plain = thing.get("data") or {} if kind == "configmap" else {}
    encoded = thing.get("binaryData" if kind == "configmap" else "data") or {}
    # surrogateescape: an environment variable and a file get the very bytes back.
    decoded = {key: base64.b64decode(value).decode(errors="surrogateescape") for key, value in encoded.items()}
    return {**plain, **decoded}


def _node(options: ClusterOptions) -> nodes.Node:
    # A machine has some thousand processes, and pods that are only shown cost none.
    limit = options.max_pods or (250 if options.runtime == "processes" else 1_000_000)
    return nodes.Node(name=options.node, address=HOST, max_pods=limit)


def _play(stack: contextlib.AsyncExitStack, target: controller.FaultController, file: Path | None) -> None:
    """Begins with the faults of a file, if there is one, and follows it; raises home.ClusterError."""
    if file is not None:
        from dispatcher.localcluster.faults import script

        try:
            target.play(script.read(file))
        except kinds.FaultError as error:
            raise home.ClusterError(str(error)) from error
        _keep(stack, script.follow(file, target))
    _keep(stack, target.follow())


def _keep(stack: contextlib.AsyncExitStack, loop: Any) -> None:
    """Runs a loop beside the rest until the stack closes."""
    task = asyncio.get_running_loop().create_task(loop)
    stack.callback(task.cancel)


async def _listen(stack: contextlib.AsyncExitStack, http: api.Api, *, ports: list[int], tls: ssl.SSLContext) -> int:
    """Opens the first port that is free; raises home.ClusterError where none is."""
    server = web.ServerRunner(
        # `handler_cancellation`: a watch whose client is gone ends at once and not at its next event.
        web.Server(http.handle, handler_cancellation=True, access_log=None, max_line_size=_LINE_BYTES),
        handle_signals=False,
        shutdown_timeout=1.0,
    )
    await server.setup()
    stack.push_async_callback(server.cleanup)
    # After `cleanup` is registered, so before it on the way
    # back: watches must end, or it waits for its whole time-out.
    stack.callback(http.close)
    # The port of the last life first: a client that read the kubeconfig finds the next life at the same place.
    for index, port in enumerate(ports):
        site = web.TCPSite(server, HOST, port, backlog=_BACKLOG, ssl_context=tls)
        try:
            await site.start()
        except OSError as error:
            if error.errno != errno.EADDRINUSE or index + 1 == len(ports):
                raise home.ClusterError(
                    f"cannot listen on {HOST}:{port}: {error.strerror}; name another port, or 0 for a free one"
                ) from error
            continue
        return int(server.addresses[0][1])
    raise AssertionError("unreachable: the last port either opened or raised")
