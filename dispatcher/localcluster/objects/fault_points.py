"""Where faults may act: what the HTTP side and the node ask there, and the answers of a healthy cluster.

Both are given something that answers; neither knows who. `faults.injection` answers by the plan of faults.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request, as faults see it. `resource` is a path for what is no object."""

    verb: str
    resource: str
    namespace: str = ""
    name: str = ""


REVIEWS = "selfsubjectaccessreviews"
"""The resource of an access review."""
Answer = Callable[[], Awaitable[web.StreamResponse]]
"""Does what a request asks for."""


class OfCalls(Protocol):
    """Asked by the HTTP side."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is planned, as most often: nobody then needs to know a request as a `Call`."""

    def denies(self, verb: str, resource: str, namespace: str) -> bool:
        """Whether a right is taken away, in RBAC's words: `get`, `pods/log`."""

    async def answer(self, request: web.BaseRequest, call: Call, answer: Answer) -> web.StreamResponse:
        """The answer as the caller gets it; raises Refusal."""

    def as_sent(self, resource: str, lines: Sequence[bytes]) -> list[bytes]:
        """The events of a watch as they are sent."""

    def close(self) -> None:
        """The cluster stops: calls that hang are let go."""


class OfPods(Protocol):
    """Asked by the node."""

    def why_not_scheduled(self, namespace: str, name: str) -> str:
        """Why no node takes a pod this time; empty where one does."""

    def why_not_pulled(self, image: str) -> str:
        """Why an image cannot be pulled this time; empty where it can."""


class NoFaults:
    """A healthy cluster."""

    is_idle = True

    def denies(self, verb: str, resource: str, namespace: str) -> bool:
        return False

    async def answer(self, request: web.BaseRequest, call: Call, answer: Answer) -> web.StreamResponse:
        return await answer()

    def as_sent(self, resource: str, lines: Sequence[bytes]) -> list[bytes]:
        return list(lines)

    def why_not_scheduled(self, namespace: str, name: str) -> str:
        return ""

    def why_not_pulled(self, image: str) -> str:
        return ""

    def close(self) -> None:
        """Nothing hangs."""
