"""What the plan of faults makes of requests and of pods: the answer to `objects.fault_points`.

A request waits, is refused, cut, left hanging, or answered with nonsense; a pod is not scheduled, an image not pulled.
"""

import asyncio
import contextlib
from collections.abc import Sequence

from aiohttp import web

from dispatcher.localcluster.faults import kinds, messages, plan
from dispatcher.localcluster.objects import connection, fault_points

_DONE_S = 0.2
"""A stream whose caller is to see a failure after it succeeded goes on for so long."""
_STREAMS = frozenset({"watch", "log"})


class Injection:
    """Answers by a plan and the clock of the cluster's event loop, to which it belongs."""

    def __init__(self, faults: plan.Plan) -> None:
        self._faults = faults
        self._closing = asyncio.Event()

    @property
    def is_idle(self) -> bool:
        """Whether no fault is planned, as most often."""
        return self._faults.is_empty

    def close(self) -> None:
        """The cluster stops: calls that hang are let go."""
        self._closing.set()

    def denies(self, verb: str, resource: str, namespace: str) -> bool:
        """Whether a fault takes a right away, in RBAC's words: `get`, `pods/log`."""
        return self._faults.denies(verb, resource, namespace, at=_now())

    def as_sent(self, resource: str, lines: Sequence[bytes]) -> list[bytes]:
        """The events of a watch as they are sent."""
        return self._faults.disturb(resource, lines, at=_now())

    def why_not_scheduled(self, namespace: str, name: str) -> str:
        """Why no node takes a pod this time."""
        fault = self._faults.unschedulable(namespace, name, at=_now())
        return "" if fault is None else messages.scheduling(fault)

    def why_not_pulled(self, image: str) -> str:
        """Why an image cannot be pulled this time."""
        fault = self._faults.unpullable(image, at=_now())
        return "" if fault is None else messages.pull(fault, image)

    # --- requests ---

    async def answer(
        self, request: web.BaseRequest, call: fault_points.Call, answer: fault_points.Answer
    ) -> web.StreamResponse:
        """The answer as the caller gets it; raises Refusal."""
        # Decided before the wait: a fault that is taken back meanwhile has been met all the same.
        effect = self._faults.effect(call, at=_now())
        if effect.delay_s:
            await asyncio.sleep(effect.delay_s)
        match effect.failure:
            case None:
                return await answer()
            case kinds.Garble() as fault:
                return await self._garble(request, call, fault, answer)
            case kinds.Fail(done=True) as fault:
                return await self._do_and_fail(request, call, fault, answer)
            case fault:
                return await self._fail(request, call, fault)

    async def _do_and_fail(
        self, request: web.BaseRequest, call: fault_points.Call, fault: kinds.Fail, answer: fault_points.Answer
    ) -> web.StreamResponse:
        """It succeeds, but the caller sees the failure; where it does not succeed the caller sees why."""
        response: web.StreamResponse | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DONE_S):  # a watch would go on
                response = await answer()
        if response is None or response.prepared:  # a stream has a status already: it can only break off
            return self._cut(request)
        return await self._fail(request, call, fault)

    async def _fail(self, request: web.BaseRequest, call: fault_points.Call, fault: kinds.Fail) -> web.StreamResponse:
        if fault.how == "answer":
            raise messages.answer(fault, call)
        if fault.how == "hang":
            await self._closing.wait()  # or until the caller gives up, which cancels this
        return self._cut(request)

    async def _garble(
        self, request: web.BaseRequest, call: fault_points.Call, fault: kinds.Garble, answer: fault_points.Answer
    ) -> web.StreamResponse:
        # A stream is not carried out: it would have to end before it can be garbled.
        real = await answer() if fault.done and call.verb not in _STREAMS else None
        body = real.body if isinstance(real, web.Response) and isinstance(real.body, bytes) else b""
        said = messages.nonsense(fault, call, real=body)
        headers = {"Content-Type": said.content_type}
        if said.promised == len(said.body):
            return web.Response(status=said.status, body=said.body, headers=headers)
        # More is promised than sent: the client sees an answer that breaks off in the middle.
        response = web.StreamResponse(status=said.status, headers=headers | {"Content-Length": str(said.promised)})
        await response.prepare(request)
        await response.write(said.body)
        return self._cut(request)

    def _cut(self, request: web.BaseRequest) -> web.StreamResponse:
        # A reset and no clean end, which some clients would take for the end of an answer without a length.
        connection.abort(request)
        return web.Response(status=500)  # nobody will see it


def _now() -> float:
    return asyncio.get_running_loop().time()
