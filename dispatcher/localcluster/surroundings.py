"""What all pods of the node share. Values and parts that the `kubelet` wires once."""

import asyncio
from dataclasses import dataclass, field

from dispatcher.localcluster import bell, link, recorder, registry, runtime
from dispatcher.localcluster.faults import plan

RETRY_S = 10.0
"""Who waits for something outside looks again so often, also where no bell rings."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """The one machine."""

    name: str
    address: str = "127.0.0.1"
    max_pods: int = 110


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """One for all pods."""

    rules: registry.Registry
    run: runtime.Runtime
    node: Node
    events: recorder.Recorder
    slots: asyncio.Semaphore
    changed: bell.Bell = field(default_factory=bell.Bell)
    """Rung when a ConfigMap, a Secret or a fault came or went: who waits for one looks again."""
    line: link.Link = field(default_factory=link.Link)
    faults: plan.Plan = field(default_factory=plan.Plan)

    def now(self) -> float:
        """The clock of faults."""
        return asyncio.get_running_loop().time()
