"""What faults can hit: the parts of a cluster, as far as the `controller` needs them. The wiring says who they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dispatcher.localcluster.objects import nodes
from dispatcher.localcluster.registry import registry


class Stream(Protocol):
    """One open watch."""

    resource: str


class Watches(Protocol):
    """All open watches; a pattern is one of resources."""

    gone_as_status: bool

    def of(self, pattern: str = "*") -> Sequence[Stream]:
        """Those that match."""

    def abort(self, pattern: str = "*") -> int:
        """Resets connections."""

    def end(self, pattern: str = "*") -> int:
        """Ends streams cleanly, once they look up."""

    def silence(self, pattern: str, until: float) -> int:
        """Holds back all bytes until a time of the loop."""


class Pod(Protocol):
    """A pod on the node."""

    @property
    def is_at_work(self) -> bool:
        """On the node, and not ended."""

    def evict(self, reason: str, message: str) -> None:
        """Ends it for a reason of the node, without grace."""

    def kill_container(self, name: str, *, for_memory: bool = False) -> bool:
        """SIGKILL for one container; False where it does not run."""


class Node(Protocol):
    """The machine that runs the pods."""

    def worker_of(self, uid: str) -> Pod | None:
        """A pod that is on it."""

    def look_again(self) -> None:
        """Faults came or went: pods that wait look again."""

    def cut_off(self) -> None:
        """From now on it receives and reports nothing."""

    def reconnect(self) -> None:
        """It is back."""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """One cluster."""

    rules: registry.Registry
    pods: Node
    live: Watches
    node: nodes.Node
