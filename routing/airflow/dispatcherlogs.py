"""Logs that dispatchers have: of pods that run, read through the dispatcher, and of pods that are gone, as saved.

Asked by a control command of Celery over the broker, so that neither scheduler nor API server of Airflow needs any
right on the cluster. A dispatcher answers at once, "reading" at first, since its event loop must not wait for a log; so
it is asked again until the log is there. Everything is bounded: pages, bytes and seconds.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

COMMAND = "podyard_log"
PATTERN = "dispatcher*"
"""Node names that are asked who they are: Celery workers, which do not know the command, are left in peace."""
ANSWER_S = 1.0
"""How long dispatchers have for one answer."""
READ_S = 5.0
"""How long a log may take to be read, in all."""
AGAIN_S = 0.05
KNOWN_S = 30.0
"""How long the dispatchers that answered last are taken for all there are."""
MAX_BYTES = 4_194_304
"""What is shown of one log."""

Reply = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Log:
    """What a dispatcher knows of one attempt."""

    source: str
    """Where it comes from, for people."""
    lines: Sequence[str]


class DispatcherLogs:
    """Asks the dispatchers of one broker."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._known: tuple[str, ...] = ()
        self._known_until_mono_s = 0.0

    def read(self, task_id: str) -> Log | None:
        """The log of an attempt, or why it waits; None where no dispatcher knows it.

        Raises what Celery raises when the broker cannot be reached.
        """
        deadline_mono_s = time.monotonic() + READ_S
        first = self._first(task_id, deadline_mono_s)
        if first is None:
            return None
        node, reply = first
        text = "".join(self._pages(task_id, node, reply, deadline_mono_s))
        return Log(source=str(reply.get("source") or node), lines=text.splitlines())

    def dispatchers(self) -> tuple[str, ...]:
        """The dispatchers that answer; asking takes a second, so the answer is kept for a while.

        Raises what Celery raises when the broker cannot be reached.
        """
        if time.monotonic() >= self._known_until_mono_s:
            self._known = tuple(sorted(self._broadcast("ping", {}, pattern=PATTERN, matcher="glob")))
            # That nobody answered is not remembered: a dispatcher may have been started since.
            self._known_until_mono_s = time.monotonic() + (KNOWN_S if self._known else 0.0)
        return self._known

    def _first(self, task_id: str, deadline_mono_s: float) -> tuple[str, Reply] | None:
        """The first page, and who has it: the one that said that it started the pod, or else any."""
        # One dispatcher is asked in milliseconds; a broadcast to all takes its whole time-out.
        hinted = self._starter_of(task_id)
        for nodes in ([hinted] if hinted else [], self.dispatchers()):
            found = self._ask(task_id, nodes, 0, deadline_mono_s) if nodes else None
            if found is not None:
                return found
        self._known_until_mono_s = 0.0  # who was known may be gone, and another one be there
        return None

    def _pages(self, task_id: str, node: str, reply: Reply, deadline_mono_s: float) -> Iterator[str]:
        size = 0
        while True:
            text = str(reply.get("text") or "")
            size += len(text)
            yield text
            offset = reply.get("next")
            if offset is None:
                return
            found = None if size >= MAX_BYTES else self._ask(task_id, [node], int(offset), deadline_mono_s)
            if found is None:
                yield f"\n… the log goes on; {size:,} bytes are shown\n"
                return
            reply = found[1]

    def _ask(self, task_id: str, nodes: Sequence[str], offset: int, deadline_mono_s: float) -> tuple[str, Reply] | None:
        """One page from whichever of the nodes has it; None where none has, or it took too long."""
        while nodes and time.monotonic() < deadline_mono_s:
            replies = self._broadcast(COMMAND, {"task_id": task_id, "offset": offset}, destination=list(nodes))
            for node, reply in replies.items():
                if reply.get("state") == "ready":
                    return node, reply
            nodes = [node for node, reply in replies.items() if reply.get("state") == "reading"]
            time.sleep(AGAIN_S if nodes else 0)
        return None

    def _starter_of(self, task_id: str) -> str | None:
        """The dispatcher that stored that the pod runs: while it does, the result backend says so."""
        meta = self._app.backend.get_task_meta(task_id)
        result = meta.get("result")
        if meta.get("status") != "STARTED" or not isinstance(result, Mapping) or "pod" not in result:
            return None
        return str(result.get("hostname") or "") or None

    def _broadcast(self, command: str, arguments: Mapping[str, Any], **whom: Any) -> dict[str, Reply]:
        """Node name -> what it answered."""
        replies = self._app.control.broadcast(command, arguments=dict(arguments), reply=True, timeout=ANSWER_S, **whom)
        return {
            str(node): reply
            for answer in replies or ()
            for node, reply in answer.items()
            if isinstance(reply, Mapping) and "error" not in reply
        }
