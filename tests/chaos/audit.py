"""The audit: what the trace file, plain SQL, the result keys and the API server say, as events for the history checker.

None of it goes through code of ours: the file is read line by line, the tables by SELECT, the server by GET.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from celery import Celery

from tests import history
from tests.chaos.bare import BareLoad
from tests.chaos.installation import BARE_DEPLOYMENT, MAX_PODS, Installation
from tests.chaos.load import Load, PlainLoad

ATTEMPTS = """
SELECT a.id, a.number, a.state, a.ended_at, a.cause, a.reason, a.waiting_reason, a.side, a.sends,
       r.dag_id, r.run_id, t.task_id
FROM attempt a JOIN task_instance t ON t.id = a.task_instance JOIN dag_run r ON r.id = t.run
"""
TASKS = "SELECT r.dag_id, r.run_id, t.task_id, t.state FROM task_instance t JOIN dag_run r ON r.id = t.run"
OPEN_PODS = """
SELECT p.name, p.phase, p.attempt_id FROM pod p
WHERE p.phase NOT IN ('Succeeded', 'Failed', 'Revoked', 'Lost')
"""
RUNS_OPEN = "SELECT count(*) AS n FROM dag_run WHERE state IN ('queued', 'running')"
ATTEMPT_ANNOTATION, RETRIES_ANNOTATION = "podyard.dev/attempt-id", "podyard.dev/retries"


@dataclass(kw_only=True)
class Audit:
    """Looks at one installation, again and again while it runs, and once when all is quiet."""

    installation: Installation
    load: Load
    plain: PlainLoad | None = None
    bare: BareLoad | None = None
    looks: dict[history.Event, None] = field(default_factory=dict)
    """What earlier looks saw, each once, in order."""
    pods: dict[str, history.PodSeen] = field(default_factory=dict)
    held: dict[history.Held, None] = field(default_factory=dict)
    """Samples of what has a limit (G9), each count once."""
    samples: int = 0

    def look(self) -> int:
        """One look at rows and pods while things go on: verdicts seen now must stand at the end. Gives open runs."""
        for pod in self.installation.pods():
            self._note_pod(pod)
        with self.installation.sql() as ask:
            final = [_recorded(row) for row in ask(ATTEMPTS) if row["state"] in history.ATTEMPT_FINAL]
            self.looks |= dict.fromkeys(final)
            self.looks |= dict.fromkeys(_verdict(row) for row in ask(TASKS) if row["state"] in history.TASK_FINAL)
            return int(ask(RUNS_OPEN)[0]["n"])

    def sample(self) -> None:
        """One look at limits, many times a second of a run: pods whose slot is taken, as the API server counts them."""
        taken = sum(_takes_a_slot(pod) for pod in self.installation.pods() if not _is_bare(pod))
        self.held[history.Held(what="pods of the queue kubernetes", count=taken, limit=MAX_PODS)] = None
        self.samples += 1

    def open_runs(self) -> int:
        """How many runs have not ended."""
        with self.installation.sql() as ask:
            return int(ask(RUNS_OPEN)[0]["n"])

    def plain_results(self) -> dict[str, Mapping[str, Any]]:
        """The stored results of plain messages."""
        found = {}
        for number, load in enumerate(self.loads):
            ids = sorted(load.offered)
            with self.installation.results(number) as client:
                texts = client.mget([f"celery-task-meta-{one}" for one in ids]) if ids else []
            found |= {one: json.loads(text) for one, text in zip(ids, texts, strict=True) if text is not None}
        return found

    @property
    def loads(self) -> list[Load | PlainLoad]:
        """Whoever sent plain messages."""
        return [self.load, *([self.plain] if self.plain else [])]

    @property
    def accepted(self) -> set[str]:
        """Ids of plain messages that the broker took."""
        return {one for load in self.loads for one in load.plain}

    def is_quiet(self, *, but: str = "") -> str:
        """What is still going on; empty where nothing is. Things left over whose name is `but` do not count."""
        if runs := self.open_runs():
            return f"{runs} runs are open"
        if missing := self.accepted - self.plain_results().keys():
            return f"{len(missing)} plain messages have no result: {sorted(missing)[:3]}"
        if self.bare is not None and (missing_bodies := self.bare.missing()):
            return f"{len(missing_bodies)} bodies without a result backend have not begun: {missing_bodies[:3]}"
        if pods := self.installation.pods():
            return f"{len(pods)} pods are left: {[pod['metadata']['name'] for pod in pods][:3]}"
        left = [one for one in self._left() if one.kind != "pod" and one.name != but]
        return "; ".join(f"{one.kind} {one.name}" for one in left[:3])

    def events(self) -> list[history.Event]:
        """Everything, for the checker."""
        return [
            *self.looks,
            *self._accepted(),
            *self._rows(),
            *self._bodies(),
            *self.pods.values(),
            *self.held,
            *self._left(),
            *(self.bare.events() if self.bare is not None else ()),
        ]

    def _accepted(self) -> Iterator[history.Event]:
        with self.installation.sql() as ask:
            tasks = {(row["dag_id"], row["run_id"]): [] for row in ask(TASKS)}
            for row in ask(TASKS):
                tasks[row["dag_id"], row["run_id"]].append(row["task_id"])
        for dag_id, run_id in self.load.runs:
            known = tasks.get((dag_id, run_id), ["(no task: the run is not in the record)"])
            yield from (history.Submitted(task=f"{dag_id}/{run_id}/{task_id}") for task_id in known)
        results = self.plain_results()
        for task_id in self.accepted:
            result = results.get(task_id)
            wanted = "failed" if task_id in self._unsent_by_celery(results) else _earned(result)
            yield history.Submitted(task=f"plain/{task_id}", wanted=wanted)

    def _unsent_by_celery(self, results: Mapping[str, Any]) -> set[str]:
        """Links of chains that a worker of Celery's own could not send on, and those after them: Celery fails them.

        A pod's success is never told so; a link whose body ran in a pod is not excused.
        """
        if self.plain is None:
            return set()
        ran = {attempt for _, attempt, _, _ in bodies(self.installation)}
        return {
            task_id
            for task_id, result in results.items()
            if result["status"] == "FAILURE"
            and (result.get("result") or {}).get("exc_type") == "OperationalError"
            and (task_id not in ran or self.plain.kind_of(task_id) == "plain celery")
        }

    def _rows(self) -> Iterator[history.Event]:
        with self.installation.sql() as ask:
            yield from map(_recorded, ask(ATTEMPTS))
            yield from map(_verdict, ask(TASKS))
        for task_id, result in self.plain_results().items():
            state = {"SUCCESS": "succeeded", "FAILURE": "failed"}.get(result["status"], "running")
            task = f"plain/{task_id}"
            yield history.Recorded(attempt=task_id, task=task, number=1, state=state, waiting_reason="-")
            yield history.Verdict(task=task, state="success" if state == "succeeded" else state)

    def _bodies(self) -> Iterator[history.Event]:
        for word, attempt, _, at in bodies(self.installation):
            kind = history.BodyStarted if word == "start" else history.BodyEnded
            yield kind(attempt=attempt, at=at)

    def _left(self) -> Iterator[history.LeftOver]:
        for pod in self.installation.pods():
            yield history.LeftOver(kind="pod", name=pod["metadata"]["name"])
        with self.installation.sql() as ask:
            for row in ask(OPEN_PODS):
                yield history.LeftOver(kind=f"pod row in phase {row['phase']}", name=row["name"])
        with self.installation.results() as client:
            if count := client.llen("podyard:chaos:reports"):
                yield history.LeftOver(kind=f"list with {count} reports", name="podyard:chaos:reports")
        for number in range(len(self.loads)):
            with self.installation.broker(number) as client:
                for queue in ("default", "plain", "kubernetes"):
                    if count := client.llen(queue):
                        yield history.LeftOver(kind=f"queue with {count} messages", name=queue)
                if count := client.hlen("unacked"):
                    yield history.LeftOver(kind=f"{count} messages not acknowledged", name="unacked")

    def slots(self) -> Iterator[history.Event]:
        """What workers and dispatchers hold, by Celery's own inspection. Ask when all is quiet."""
        app = Celery("auditor", broker=self.installation.settings.broker.url, set_as_current=False)
        inspect = app.control.inspect(timeout=3)
        asked = {"active": inspect.active(), "reserved": inspect.reserved(), "stats": inspect.stats()}
        app.close()
        for what in ("active", "reserved"):
            for node, requests in (asked[what] or {}).items():
                yield from (history.LeftOver(kind=f"{what} request of {node}", name=one["id"]) for one in requests)
        stats = asked["stats"] or {}
        for node in self.installation.nodes - set(stats):
            yield history.LeftOver(kind="worker that does not answer", name=node)
        for node, facts in stats.items():
            for what in ("pods-in-flight", "waiting", "ended-not-stored", "leftovers"):
                if facts["pool"].get(what):
                    yield history.LeftOver(kind=f"slot ({what} {facts['pool'][what]})", name=node)

    def _note_pod(self, pod: Mapping[str, Any]) -> None:
        metadata = pod["metadata"]
        notes = metadata.get("annotations") or {}
        if ATTEMPT_ANNOTATION in notes and not _is_bare(pod):  # of those the ledger tells
            self.pods[metadata["uid"]] = history.PodSeen(
                attempt=notes[ATTEMPT_ANNOTATION],
                uid=metadata["uid"],
                launch=int(notes.get(RETRIES_ANNOTATION) or 0),
            )


def _is_bare(pod: Mapping[str, Any]) -> bool:
    """Whether it is one of the application without a result backend."""
    return bool((pod["metadata"].get("labels") or {}).get("podyard.dev/deployment") == BARE_DEPLOYMENT)


def _takes_a_slot(pod: Mapping[str, Any]) -> bool:
    """Whether it counts against limits: not once its deciding container has ended, or its end was asked for."""
    status = pod.get("status") or {}
    ended = [one["name"] for one in status.get("containerStatuses") or () if "terminated" in one["state"]]
    is_over = "base" in ended or status.get("phase") in ("Succeeded", "Failed")
    return not is_over and "deletionTimestamp" not in pod["metadata"]


def bodies(installation: Installation) -> Iterator[tuple[str, str, str, float]]:
    """(start or end, attempt, process, time) of each line of the trace."""
    if not installation.trace.exists():
        return
    for line in installation.trace.read_text().splitlines():
        word, attempt, process, at = line.split()
        yield word, attempt, process, float(at)


def figures(installation: Installation) -> dict[str, Any]:
    """Counts for the report."""
    with installation.sql() as ask:
        attempts = ask("SELECT side, state, cause, count(*) AS n FROM attempt GROUP BY side, state, cause")
        tasks = ask("SELECT state, count(*) AS n FROM task_instance GROUP BY state")
        sent = ask("SELECT count(*) AS n FROM attempt WHERE sends > 1")
    return {
        "tasks": {row["state"]: row["n"] for row in tasks},
        "attempts": {f"{row['side']} {row['state']} {row['cause'] or ''}".strip(): row["n"] for row in attempts},
        "attempts sent more than once": sent[0]["n"],
        "bodies begun": sum(word == "start" for word, *_ in bodies(installation)),
    }


def _earned(result: Mapping[str, Any] | None) -> str:
    """A plain message is nobody's to try again: what happened to its pod is its verdict."""
    words = ((result or {}).get("result") or {}) if (result or {}).get("status") == "FAILURE" else {}
    told = json.dumps(words)
    return "failed" if "infrastructure" in told or "OOMKilled" in told else "success"


def _recorded(row: Mapping[str, Any]) -> history.Recorded:
    return history.Recorded(
        attempt=row["id"],
        task=f"{row['dag_id']}/{row['run_id']}/{row['task_id']}",
        number=row["number"],
        state=row["state"],
        ended_at=_seconds(row["ended_at"]),
        cause=row["cause"],
        waiting_reason=row["waiting_reason"],
    )


def _verdict(row: Mapping[str, Any]) -> history.Verdict:
    return history.Verdict(task=f"{row['dag_id']}/{row['run_id']}/{row['task_id']}", state=row["state"])


def _seconds(value: Any) -> float | None:
    """A time of the database: SQLite gives text without a zone."""
    if value is None:
        return None
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
