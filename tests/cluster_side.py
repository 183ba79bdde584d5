"""ClusterSide: the parts of a dispatcher that work on a cluster, wired as in production, on the fake API server.

For unit tests of what takes several parts: no process, no thread of its own, no Celery. What is posted to Celery's side
is in `posted`; commands are put by `send`. The loops do not run unless a test starts them.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from dispatcher.attempts.attempt import Attempt, Pod
from dispatcher.attempts.celery_side import Command, Event
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.status_store import PodRow
from dispatcher.attempts.status_writer import StatusWriter
from dispatcher.background import Background
from dispatcher.launching.claim_client import Claims, ClaimStore
from dispatcher.manifests import names
from dispatcher.options import Options, QueueProfile
from dispatcher.watching import wiring
from dispatcher.watching.reconciler import Reconciler
from tests import builders, fake_api

OWNER = "me@host"


class Answers:
    """What Celery's application answers; a test changes it. `trouble` is raised as long as it stands."""

    def __init__(self) -> None:
        self.outcomes: set[str] = set()
        self.revoked: set[str] = set()
        self.workers: set[str] | None = {OWNER}
        self.lost: list[PodRow] = []
        self.trouble: Exception | None = None

    def has_outcome(self, attempt_id: str, *, besides: str | None = None) -> bool:
        if self.trouble is not None:
            raise self.trouble
        return attempt_id in self.outcomes and besides is None

    def alive(self) -> set[str] | None:
        return self.workers

    def store_lost(self, row: PodRow) -> str | None:
        if self.trouble is not None:
            raise self.trouble
        if row.attempt_id in self.outcomes:
            return "SUCCESS"
        self.lost.append(row)
        return "LOST"

    def is_revoked(self, attempt_id: str) -> bool:
        return attempt_id in self.revoked


class CelerySide:
    """Keeps events, gives commands."""

    def __init__(self) -> None:
        self.posted: list[Any] = []
        self._commands: list[Command] = []
        self._news = asyncio.Event()

    def post(self, event: Event) -> None:
        self.posted.append(event)

    def send(self, command: Command) -> None:
        self._commands.append(command)
        self._news.set()

    async def commands(self) -> list[Command]:
        while not self._commands:
            self._news.clear()
            await self._news.wait()
        commands, self._commands = self._commands, []
        return commands


class ClusterSide:
    """Made inside a running loop."""

    def __init__(self, *, claim_store: ClaimStore | None = None, limit: int = 100, **options: Any) -> None:
        self.api = fake_api.FakeApi()
        self.celery = CelerySide()
        self.answers = Answers()
        self.options = Options(
            **{"profile_for": lambda queue: QueueProfile(), "app_path": "tests.app:app", "image": "i", **options}
        )
        self.attempts = Attempts(is_strict=True)
        self.background = Background()
        self.claims = Claims(claim_store, owner=OWNER) if claim_store is not None else None
        self.shared = wiring.Shared(
            options=self.options,
            owner=OWNER,
            attempts=self.attempts,
            celery=self.celery,
            questions=self.answers,
            claims=self.claims,
            background=self.background,
        )
        self.parts = wiring.wire(self.api, self.shared, limit=limit)  # type: ignore[arg-type]
        self.status = StatusWriter(self.options, owner=OWNER, attempts=self.attempts, celery=self.celery)
        self.reconciler = Reconciler(self.attempts, status=self.status, celery=self.celery)
        self.reconciler.executors = self.parts.executors

    @property
    def posted(self) -> list[Any]:
        """The events for Celery's side so far."""
        return self.celery.posted

    async def launched(self, **fields: Any) -> Attempt:
        """An attempt whose pod is in the cluster."""
        made = builders.queued(self.attempts, **fields)
        self.attempts.admit(made)
        labels = {"podyard.dev/owner": names.label_value(OWNER)}
        pod = self.api.add_pod(builders.pod_of(made, labels=labels), made.namespace)
        found = Pod(namespace=made.namespace, name=made.pod.name, uid=pod["metadata"]["uid"], created_at=builders.START)
        self.attempts.launched(made, found)
        return made

    def saw(self, made: Attempt, status: Any, kind: str = "MODIFIED") -> None:
        """Its pod says so, in the cluster and in an event of the watch."""
        key = (made.namespace, made.pod.name)
        if key in self.api.pods:
            self.api.set_status(made.pod.name, made.namespace, **status)
        self.attempts.saw(made, builders.seen(made, status, kind=kind), uid=made.pod.uid or "")

    async def settle(self) -> None:
        """Returns when what was begun beside is done."""
        while self.background._tasks:
            await asyncio.wait(list(self.background._tasks), timeout=5)

    async def until(self, is_so: Callable[[], Any], *, within_s: float = 5.0) -> None:
        """Returns as soon as it is so; TimeoutError where it is not."""
        async with asyncio.timeout(within_s):
            while not is_so():  # a state of the world, which has no event
                await asyncio.sleep(0.002)

    async def close(self) -> None:
        """Ends what is still under way."""
        await self.background.cancel()
