"""The result backend of the DAG app: Celery's Redis backend that also reports, and that guards against second runs.

A result is stored under its key once (the first verdict stands) and announced on one list that the collector drains.
Nothing is published or subscribed, so the scheduler sends messages without a round trip each; waiting for a pending
`AsyncResult` of a DAG task is therefore not supported. Reports are hints, the result keys are the truth: a report that
gets lost costs time, no result.

A claim is a key that exactly one delivery of an attempt can take: a Celery worker before the body runs, a dispatcher
before it asks for a pod (`take_launches`, called by `dispatcher.launching.claim_client`;
docs/adr/0006-claim-before-create.md). Both use the same key, so that they exclude each other, and one that is blocked
starts on neither side.
"""

import json
import math
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import uuid4

import redis
from celery import Celery, states
from celery.backends.redis import RedisBackend

from dispatcher import retry
from dispatcher.protocol import launch_claim, tracebacks

T = TypeVar("T")

REPORTS_MAX = 200_000
"""Reports that wait while no collector runs; beyond that only the keys are kept, and the sweep finds those."""
BACKOFF = retry.Backoff(first_s=0.1, last_s=1.0)
UNAVAILABLE = (redis.RedisError, OSError)
"""What a call raises while the server is away."""
DEFAULT_EXPIRES_S = 86_400
CLAIM_MIN_S = 7200
"""A claim stands at least so long, however soon results expire: what a message that comes again is told by it."""
BLOCKED = "blocked"
"""The claim of an attempt that must not run any more."""

# NX: the first verdict stands in the backend, too (ADR 3). A report for which the list has no room is
# dropped, and the sweep finds the key (D6).
_FINISH = f"""
local new = redis.call('SET', KEYS[1], ARGV[1], 'NX', 'EX', ARGV[2])
if redis.call('LLEN', KEYS[2]) < {REPORTS_MAX} then redis.call('RPUSH', KEYS[2], ARGV[3]) end
if new then return 1 end
return 0
"""
# The same claim asked for again is granted again: the answer to the first call may have got lost (ADR 3).
_CLAIM = f"""
local held = redis.call('GET', KEYS[1])
if held then
  if held == ARGV[1] then return 1 end
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
if ARGV[3] ~= '' and redis.call('LLEN', KEYS[2]) < {REPORTS_MAX} then redis.call('RPUSH', KEYS[2], ARGV[3]) end
return 1
"""


# Ages are measured by the server's clock alone (ADR 6). The token is searched for as plain text
# (`true`): in a Lua pattern a dash is an operator.
_TAKE = """
local time = redis.call('TIME')
local now_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local answers = {now_ms}
for i = 1, #KEYS, 2 do
  local held = redis.call('GET', KEYS[i])
  local is_over = redis.call('EXISTS', KEYS[i + 1])
  if is_over == 0 and (not held or string.find(held, ARGV[i + 1], 1, true)) then
    redis.call('SET', KEYS[i], '{"launch":' .. ARGV[i + 2] .. ',"since_ms":' .. now_ms .. '}', 'EX', ARGV[1])
    held = false
  end
  answers[#answers + 1] = held
  answers[#answers + 1] = is_over
end
return answers
"""
"""For each pair of keys (claim, result), given (token, claim): write the claim, if there is no outcome, and none but a
claim with this token; answers what stands there else, and whether there is an outcome."""
# Compared and set in one step: whoever read the claim may be late, and another dispatcher have taken its place.
_SWAP = """
local held = redis.call('GET', KEYS[1])
if not held or not string.find(held, ARGV[2], 1, true) or redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
if ARGV[3] == '' then
  redis.call('DEL', KEYS[1])
else
  local time = redis.call('TIME')
  local now_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
  redis.call('SET', KEYS[1], '{"launch":' .. ARGV[3] .. ',"since_ms":' .. now_ms .. '}', 'EX', ARGV[1])
end
return 1
"""


class Keys:
    """The names of this installation's keys."""

    def __init__(self, deployment: str) -> None:
        self.reports = f"podyard:{deployment}:reports"
        self.era = f"podyard:{deployment}:era"
        """Since when nothing is known to be missing here: written by the scheduler."""
        self._prefix = f"podyard:{deployment}"

    def claim(self, attempt_id: str) -> str:
        """Who runs or ran an attempt."""
        return f"{self._prefix}:claim:{attempt_id}"

    def heartbeat(self, instance: str) -> str:
        """The heartbeat of a worker."""
        return f"{self._prefix}:worker:{instance}"

    def body(self, attempt_id: str) -> str:
        """The heartbeat of a body, which a claim that was lost with the server's data cannot take along."""
        return f"{self._prefix}:body:{attempt_id}"


class Heart:
    """A worker's heartbeat, and one for each body that it runs: keys that run out unless they are renewed."""

    def __init__(self, client: Any, *, keys: Keys, instance: str, lease_s: int) -> None:
        self._client = client
        self._keys = keys
        self._worker_key = keys.heartbeat(instance)
        self._lease_s = lease_s

    def beat(self, running: Iterable[str] = ()) -> None:
        """Renew them; `running` are the attempts whose bodies run."""
        host = socket.gethostname()
        # One round trip, and no MULTI: no key depends on another.
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.set(self._worker_key, host, ex=self._lease_s)
            for attempt_id in running:
                pipeline.set(self._keys.body(attempt_id), host, ex=self._lease_s)
            pipeline.execute()

    def end(self) -> None:
        """Take the worker's back."""
        self._client.delete(self._worker_key)


class ReportingBackend(RedisBackend):
    """Celery's Redis backend with reports and claims."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.keys = Keys(self.app.conf.get("podyard_deployment") or "default")
        self.instance = uuid4().hex
        """This worker with its children; they share it because they are forked after it was made."""
        self._host = socket.gethostname()
        # Starts that this process has claimed or reported, until their end is stored with them.
        self._started: dict[str, Mapping[str, Any]] = {}
        self._scripts: dict[str, Any] = {}

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Nothing: no SUBSCRIBE for each message that is sent."""

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        """Also where the server answers and refuses, as a read-only replica or a full server does: that passes."""
        return isinstance(exc, UNAVAILABLE)

    def claim(self, attempt_id: str, holder: str) -> bool:
        """Take the attempt for this process. False: another delivery has it or had it.

        Waits while the server is away: an attempt that nobody could claim must not run.
        """
        start = self._start(pid=os.getpid())
        # Made once, before the loop: by its nonce a repeated call is known as the one whose answer got lost.
        claim = _compact({**start, "holder": holder, "instance": self.instance, "nonce": uuid4().hex[:8]})
        report = _compact({"id": attempt_id, "kind": "started", **start})
        keys, args = [self.keys.claim(attempt_id), self.keys.reports], [claim, self.claim_s, report]
        for one in retry.Tries(UNAVAILABLE, backoff=BACKOFF):  # asked again it takes nothing twice
            with one:
                is_taken = bool(self._run(_CLAIM, keys, args))
        if not is_taken:
            return False
        # Its result will carry it along, so that a lost report of the start loses nothing.
        self._started[attempt_id] = start
        return True

    def block(self, attempt_id: str) -> bool:
        """Make sure that no worker runs this attempt any more; False if one has begun."""
        claim = _compact({BLOCKED: True})
        # An empty report is none: nothing has started. The key is a worker's and a
        # dispatcher's alike, so it stops both (B15).
        return bool(self._run(_CLAIM, [self.keys.claim(attempt_id), self.keys.reports], [claim, self.claim_s, ""]))

    def take_launches(self, wanted: Sequence[tuple[str, str, str]]) -> list[tuple[str | None, float, bool]]:
        """Claim launches of attempts, given as (attempt id, token, claim as JSON), in one round trip.

        One answer each: what stands there instead (None: this claim stands now, or stood and is renewed), how many
        seconds ago that was written, and whether the attempt has an outcome, in which case nothing is written.
        """
        keys: list[str] = []
        args: list[Any] = [self.claim_s]
        for attempt_id, token, claim in wanted:
            # Claim and result in one script: an outcome that is stored between two
            # calls would let a body run again (B5).
            keys += (self.keys.claim(attempt_id), self.get_key_for_task(attempt_id))
            args += (token, claim)
        now_ms, *found = self._call(_TAKE, keys, args)
        texts = [None if held is None else held.decode(errors="replace") for held in found[::2]]
        return [
            (text, _age_s(text, now_ms=int(now_ms)), bool(is_over))
            for text, is_over in zip(texts, found[1::2], strict=True)
        ]

    def swap_launch(self, attempt_id: str, held: str, claim: str | None) -> bool:
        """Put another claim, or none, where one stands that contains `held`, unless the attempt has an outcome.

        `held` is all of the claim, or its token. Says whether it was put there.
        """
        keys = [self.keys.claim(attempt_id), self.get_key_for_task(attempt_id)]
        return bool(self._call(_SWAP, keys, [self.claim_s, held, claim or ""]))

    def doubt(self, attempt_id: str) -> None:
        """Claim a launch in nobody's name, if nobody claims it: no pod is created for it any more.

        A dispatcher that gets its message again takes its pod back, or says that it is lost.
        """
        # The token follows from the attempt: whoever doubts again renews this claim, and takes nobody else's.
        claim = launch_claim.Claim(token=f"doubt:{attempt_id}", retries=0, owner="scheduler")
        self.take_launches([(attempt_id, claim.token, claim.encode())])

    def wake(self) -> None:
        """Make the scheduler look at the database now."""
        self.client.rpush(self.keys.reports, _compact({"kind": "wake"}))

    def new_client(self) -> Any:
        """A client with connections of its own, for a thread that must share no lock with what is forked."""
        return self._create_client(**self.connparams)

    def store_result(
        self, task_id: Any, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        """As Celery does, with the author's part of the traceback where `routing.run` has kept it."""
        # Celery's own traceback begins in the tracer: its frames are of no use to the author.
        text = tracebacks.kept(result) or traceback
        return super().store_result(task_id, result, state, traceback=text, request=request, **kwargs)

    def _store_result(
        self,
        task_id: Any,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Store and report a verdict; of what comes before a verdict only the start is reported."""
        # Not super()'s: that reads before it writes, with a race between the two, overwrites a failure, and publishes.
        attempt_id = task_id.decode() if isinstance(task_id, bytes) else str(task_id)
        if state == states.STARTED:
            self._report_start(attempt_id, result if isinstance(result, Mapping) else {})
        # RETRY is no verdict, and would take the key of the one that comes.
        elif state in states.READY_STATES:
            self._finish(attempt_id, self._get_result_meta(result, state, traceback, request), state)
        return result

    def _report_start(self, attempt_id: str, meta: Mapping[str, Any]) -> None:
        pod, pid = meta.get("pod"), meta.get("pid")
        start = self._start(pid=pid if isinstance(pid, int) else None, at=meta.get("started_at"))
        if pod:
            # A dispatcher stores this: the host of a pod is its node, not ours.
            start |= {"host": meta.get("node") or meta.get("hostname"), "pod": pod}
        self._started[attempt_id] = start
        self.client.rpush(self.keys.reports, _compact({"id": attempt_id, "kind": "started", **start}))

    def _finish(self, attempt_id: str, meta: dict[str, Any], state: str) -> None:
        # As Celery's own `_store_result` does; `AsyncResult` reads it.
        meta["task_id"] = attempt_id
        started = self._started.pop(attempt_id, None)
        if started is not None:
            meta["started"] = started
        text = self.encode(meta)
        # With its size, by which the collector bounds what one MGET brings into memory.
        report = {"id": attempt_id, "kind": "ended", "at": meta["date_done"], "state": state, "size": len(text)}
        keys = [self.get_key_for_task(attempt_id), self.keys.reports]
        self._run(_FINISH, keys, [text, self._expires_s, _compact(report)])

    def _start(self, *, pid: int | None, at: Any = None) -> dict[str, Any]:
        when = at if isinstance(at, str) else datetime.now(UTC).isoformat()
        return {"at": when, "host": self._host, "pid": pid}

    @property
    def claim_s(self) -> int:
        """So long a claim stands; an attempt without one has not begun within that time."""
        return max(self._expires_s, CLAIM_MIN_S)

    @property
    def _expires_s(self) -> int:
        return int(self.expires or DEFAULT_EXPIRES_S)

    def _run(self, script: str, keys: list[Any], args: list[Any]) -> int:
        return int(self._call(script, keys, args))

    def _call(self, script: str, keys: list[Any], args: list[Any]) -> Any:
        # Called by EVALSHA, so that the text travels once; redis-py loads it again
        # after NOSCRIPT (the server was restarted).
        if script not in self._scripts:
            self._scripts[script] = self.client.register_script(script)
        return self._scripts[script](keys=keys, args=args)


def wake(app: Celery) -> None:
    """Make the scheduler look at the database now; for whoever created a run. A lost one costs half a second."""
    app.backend.wake()


def _age_s(claim: str | None, *, now_ms: int) -> float:
    """Seconds since a claim says that it was written; many where it does not say."""
    try:
        return max(0.0, (now_ms - int(json.loads(claim or "")["since_ms"])) / 1000)
    except (ValueError, TypeError, KeyError, RecursionError):
        return math.inf


def _compact(fields: Mapping[str, Any]) -> str:
    return json.dumps({key: value for key, value in fields.items() if value is not None}, separators=(",", ":"))
