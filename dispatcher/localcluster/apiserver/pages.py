"""Lists in pages: every page shows the objects as they were when the first one was asked for."""

import base64
import binascii
import itertools
import json
import secrets
from collections import OrderedDict
from dataclasses import dataclass

from dispatcher.localcluster.objects import refusal, store

_KEPT = 16
_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


@dataclass(frozen=True, kw_only=True)
class Page:
    """One answer to a list."""

    objects: list[store.Snapshot]
    version: int
    next_token: str = ""
    remaining: int = 0


class Pages:
    """Unfinished lists; the oldest is given up when there are too many."""

    def __init__(self) -> None:
        self._open: OrderedDict[int, tuple[int, list[store.Snapshot]]] = OrderedDict()
        self._numbers = itertools.count(secrets.randbits(40))  # a token of an earlier life must not fit

    def first(self, found: list[store.Snapshot], *, version: int, limit: int) -> Page:
        """The first page; all of it where there is no limit."""
        if not limit or len(found) <= limit:
            return Page(objects=found, version=version)
        number = next(self._numbers)
        self._open[number] = (version, found)
        # A real server forgets after five minutes; here the number bounds memory.
        while len(self._open) > _KEPT:
            self._open.popitem(last=False)
        return self._page(number, start=0, limit=limit)

    def more(self, token: str, *, limit: int) -> Page:
        """A later page; raises Refusal 400 for a token that is none and 410 for one that is too old."""
        try:
            said = json.loads(base64.urlsafe_b64decode(token.encode() + b"=="))
            number, start = int(said["list"]), int(said["start"])
        except (ValueError, KeyError, TypeError, binascii.Error):
            raise refusal.bad_request("continue key is not valid: it was not given by this server") from None
        if number not in self._open:
            raise refusal.Refusal(410, "Expired", _EXPIRED)
        # Whoever is still reading is not the oldest.
        self._open.move_to_end(number)
        return self._page(number, start=start, limit=limit)

    def _page(self, number: int, *, start: int, limit: int) -> Page:
        version, found = self._open[number]
        stop = start + limit if limit else len(found)
        if stop >= len(found):  # kept nevertheless: a client may ask for its last page again
            return Page(objects=found[start:], version=version)
        said = json.dumps({"v": "podyard/v1", "rv": version, "list": number, "start": stop})
        token = base64.urlsafe_b64encode(said.encode()).decode().rstrip("=")
        return Page(objects=found[start:stop], version=version, next_token=token, remaining=len(found) - stop)
