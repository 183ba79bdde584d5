"""Faults and counters over HTTP, below a path of our own: `/podyard/faults` and `/podyard/stats`."""

from typing import Any

from aiohttp import web

from dispatcher.localcluster.apiserver import answers, api, calls, stats, streams
from dispatcher.localcluster.faults import controller, kinds, plan
from dispatcher.localcluster.objects import refusal

_OFF = "faults are off: start the local cluster with --faults"
Json = dict[str, Any]


class Endpoints:
    """`faults` None: they are off, and asking for one is 403."""

    def __init__(self, counted: stats.Stats, live: streams.Streams, faults: controller.FaultController | None) -> None:
        self._stats = counted
        self._live = live
        self._faults = faults

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request whose token was checked."""
        what, _, rest = request.path.removeprefix(api.OWN).rstrip("/").partition("/")
        if what == "stats" and not rest:
            return self._about_requests(request)
        if what == "faults":
            if self._faults is None:
                raise refusal.Refusal(403, "Forbidden", _OFF)
            return await self._about_faults(request, rest, self._faults)
        raise refusal.no_such_path()

    def _about_requests(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method not in {"GET", "DELETE"}:
            raise refusal.method_not_allowed()
        report = self._stats.report(open_watches=len(self._live.open))
        if request.method == "DELETE":
            self._stats.reset()
        return answers.plain(report)

    async def _about_faults(
        self, request: web.BaseRequest, rest: str, faults: controller.FaultController
    ) -> web.StreamResponse:
        match request.method, rest:
            case "GET", "":
                pass
            case "POST", "":
                return await self._add(request, faults)
            case "PUT", "":
                self._read(kinds.read_script, await calls.thing(request), faults.play)
            case "DELETE", "":
                faults.clear()
            case "DELETE", number if number.isdigit():
                if not faults.remove(int(number)):
                    raise refusal.not_found("faults", number)
            case _:
                raise refusal.method_not_allowed()
        return answers.plain({"seed": faults.plan.seed, "faults": [_shown(entry) for entry in faults.plan.entries()]})

    async def _add(self, request: web.BaseRequest, faults: controller.FaultController) -> web.StreamResponse:
        added = self._read(kinds.read_all, await calls.thing(request), faults.add)
        shown = [_shown(entry) | {"met": met} for entry, met in added]
        return answers.plain({"seed": faults.plan.seed, "faults": shown}, status=201)

    def _read(self, read: Any, thing: Any, then: Any) -> Any:
        try:
            return then(read(thing))
        except kinds.FaultError as error:
            raise refusal.Refusal(422, "Invalid", str(error)) from None


def _shown(entry: plan.Entry) -> Json:
    return {"id": entry.number, "hits": entry.hits, "fault": kinds.write(entry.fault)}
