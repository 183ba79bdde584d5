"""What the contract suite asks of a server and is told by it, as a history for the checker (`tests/history.py`).

Recorded are objects that carry the suite's label. Besides the requests of the tests there is one stream over all of
their pods, from before the first test to after the last one.
"""

import contextlib
import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import urllib3

from tests import apihistory

Json = dict[str, Any]
LABEL = "podyard-contract"
SUITE = "the suite's stream"
_OBJECT = re.compile(r"^/api/v1(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?$")
_PAST = frozenset({"continue", "resourceVersion", "resourceVersionMatch"})
"""With one of these an answer may show the past."""


@dataclass
class Recording:
    """Events in the order in which they became known. Any thread may add some."""

    events: list[apihistory.Event] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _streams: Iterator[int] = field(default_factory=itertools.count)

    def add(self, event: apihistory.Event) -> None:
        with self._lock:
            self.events.append(event)

    def asked(self, method: str, path: str, body: Any, query: Mapping[str, Any]) -> None:
        """A request is about to be sent: what it deletes may be gone from now on."""
        if method == "DELETE" and not _is_dry(body, query):
            found = _OBJECT.match(path)
            if found and found["plural"] == "namespaces":
                self.add(apihistory.Unmade(place=("", found["name"] or "", "")))
            elif found:
                self.add(apihistory.Unmade(place=(found["plural"], found["namespace"] or "", found["name"] or "")))
        elif method == "POST" and path.endswith("/eviction"):
            self.asked("DELETE", path.removesuffix("/eviction"), body, query)

    def answered(self, method: str, path: str, body: Any, query: Mapping[str, Any], *, code: int, answer: Any) -> None:
        """A request was answered."""
        found = _OBJECT.match(path)
        if found is None or not isinstance(answer, dict) or _is_dry(body, query) or _PAST & query.keys():
            return
        plural = found["plural"]
        if method == "POST" and code == 201 and _is_ours(answer):
            self.add(apihistory.Created(**apihistory.facts(answer, plural)))
        elif method == "POST" and code == 409 and answer.get("reason") == "AlreadyExists" and _is_ours(body):
            name = str(body["metadata"]["name"])
            self.add(apihistory.Taken(place=(plural, found["namespace"] or "", name)))
        elif method in ("GET", "PUT", "PATCH") and code == 200:
            listed = answer.get("items") or [] if str(answer.get("kind", "")).endswith("List") else [answer]
            for thing in filter(_is_ours, listed):
                self.add(apihistory.Read(**apihistory.facts(thing, plural)))

    def told(self, path: str, query: Mapping[str, Any], events: Iterator[Json]) -> Iterator[Json]:
        """A stream that begins at a version, recorded on its way; one that begins with what is there has no order."""
        found = _OBJECT.match(path)
        is_ordered = query.get("resourceVersion") not in (None, "0") and "sendInitialEvents" not in query
        stream = f"stream {next(self._streams)} of {path}"
        for event in events:
            if found and is_ordered:
                self.tell(stream, found["plural"], event)
            yield event

    def tell(self, stream: str, plural: str, event: Json) -> None:
        """One event."""
        thing = event.get("object") or {}
        if event["type"] in ("ADDED", "MODIFIED", "DELETED") and _is_ours(thing):
            is_final = event["type"] == "DELETED" and "deletionTimestamp" in thing["metadata"]
            facts = apihistory.facts(thing, plural)
            self.add(apihistory.Told(stream=stream, type=event["type"], is_final=is_final, **facts))


@dataclass
class Stream:
    """The stream over all pods of the suite: a thread that watches, and goes on where a watch ended."""

    recording: Recording
    version: str
    watch: Callable[[str], Iterator[Json]]
    """From a version on, until the server ends it."""
    trouble: str = ""
    """Why it has a gap."""
    _stopped: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        threading.Thread(target=self._run, name="suite-stream", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def has_lost(self, uid: str) -> bool:
        """Whether an object was DELETED, and so everything before that is recorded."""
        told = [one for one in list(self.recording.events) if isinstance(one, apihistory.Told) and one.stream == SUITE]
        return any(one.uid == uid and one.type == "DELETED" for one in told)

    def _run(self) -> None:
        while not self._stopped.is_set() and not self.trouble:
            with contextlib.suppress(OSError, urllib3.exceptions.HTTPError):
                for event in self.watch(self.version):
                    if event["type"] == "ERROR":
                        self.trouble = json.dumps(event)
                        return
                    self.version = event["object"]["metadata"]["resourceVersion"]
                    self.recording.tell(SUITE, "pods", event)


def _is_ours(thing: Any) -> bool:
    metadata = thing.get("metadata") if isinstance(thing, dict) else None
    return bool(metadata and metadata.get("name") and LABEL in (metadata.get("labels") or {}))


def _is_dry(body: Any, query: Mapping[str, Any]) -> bool:
    return "dryRun" in query or (isinstance(body, dict) and "dryRun" in body)
