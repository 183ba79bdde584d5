"""What all pods of the node share. Values and parts that the `kubelet` wires once."""

import asyncio
from dataclasses import dataclass, field

from dispatcher.localcluster.kubelet import link, runtime
from dispatcher.localcluster.objects import fault_points, nodes, notifier, recorder
from dispatcher.localcluster.registry import registry

RETRY_S = 10.0
"""Who waits for something outside looks again so often, also where nobody notifies it."""


@dataclass(frozen=True, kw_only=True)
class NodeContext:
    """One for all pods."""

    rules: registry.Registry
    run: runtime.Runtime
    node: nodes.Node
    events: recorder.Recorder
    slots: asyncio.Semaphore
    changed: notifier.Notifier = field(default_factory=notifier.Notifier)
    """Notifies when a ConfigMap, a Secret or a fault came or went: who waits for one looks again."""
    line: link.Link = field(default_factory=link.Link)
    faults: fault_points.OfPods = field(default_factory=fault_points.NoFaults)
