"""The load of the application without a result backend, and what became of it, by its ledger and the table of pods.

Such an application is promised "at least once" (ADR 6: nobody claims its launches), so a body that ran twice is a
figure, and one that never ran though no fault of its pod was told is a loss.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import uuid4

from celery import Celery
from kombu import exceptions as kombu_exceptions

from tests import history
from tests.chaos.installation import BARE_NUMBER, Installation

PAGES = 3
AT_ONCE = 2
TOLD = "SELECT attempt_id FROM pod WHERE deployment = 'bare' AND phase IN ('Failed', 'Lost')"


@dataclass(kw_only=True)
class BareLoad:
    """Keeps some messages of each kind going; remembers which the broker took."""

    installation: Installation
    app: Celery = field(init=False)
    accepted: dict[str, str] = field(default_factory=dict)
    """Key of a body -> the id of its message."""
    refused: int = 0

    def __post_init__(self) -> None:
        self.app = Celery("bare", broker=self.installation.address("broker", BARE_NUMBER), set_as_current=False)
        options = {"socket_timeout": 3, "socket_connect_timeout": 3}
        self.app.conf.update(broker_transport_options=options, task_publish_retry=False)

    def top_up(self) -> None:
        """Submit what is missing; what is refused while the broker is away was not accepted."""
        done = self._words("end")
        for kind, queue in (("alone", "bare"), ("alone", "kubernetes"), ("pages", "kubernetes")):
            mine = f"{kind}-{queue}-"
            under_way = [key for key in self.accepted if key.startswith(mine) and key not in done]
            for _ in range(AT_ONCE - len(under_way)):
                self._submit(kind, queue, key=mine + uuid4().hex[:8])

    def _submit(self, kind: str, queue: str, *, key: str) -> None:
        task_id, first = str(uuid4()), f"{key}.{PAGES}" if kind == "pages" else key
        args = [key, PAGES] if kind == "pages" else [key]
        try:
            self.app.send_task(f"tests.chaos.bareapp.{kind}", args=args, task_id=task_id, queue=queue, retry=False)
        except (kombu_exceptions.KombuError, OSError):
            self.refused += 1
        else:
            self.accepted[first] = task_id

    def missing(self) -> list[str]:
        """Bodies that should have begun, and neither did nor have a pod of which a fault is told."""
        begun, told = self._words("start"), self._told()
        wanted = {**self.accepted, **self._pages_sent()}
        return sorted(key for key, task_id in wanted.items() if key not in begun and task_id not in told)

    def events(self) -> Iterator[history.Event]:
        """Each body that should have begun, for the checker."""
        missing = set(self.missing())
        for key in {**self.accepted, **self._pages_sent()}:
            task = f"bare/{key}"
            yield history.Submitted(task=task, has_body=False)
            if key not in missing:
                yield history.Recorded(attempt=key, task=task, number=1, state="succeeded", waiting_reason="-")
                yield history.Verdict(task=task, state="success")
        with self.installation.broker(BARE_NUMBER) as client:
            for queue in ("bare", "kubernetes"):
                if count := client.llen(queue):
                    yield history.LeftOver(kind=f"queue with {count} messages", name=f"bare {queue}")
            if count := client.hlen("unacked"):
                yield history.LeftOver(kind=f"{count} messages not acknowledged", name="bare unacked")

    def figures(self) -> dict[str, int]:
        """For the report."""
        begun = Counter(key for word, key in self._ledger() if word == "start")
        return {
            "bodies without a result backend": len(begun),
            "of them pages of tasks that replace themselves": sum("." in key for key in begun),
            "of them begun more than once, which is allowed there": sum(count > 1 for count in begun.values()),
        }

    def close(self) -> None:
        self.app.close()

    def _pages_sent(self) -> dict[str, str]:
        """Pages that were sent on, by the id that all pages of a task share."""
        ids = {key.partition(".")[0]: task_id for key, task_id in self.accepted.items()}
        return {key: ids.get(key.partition(".")[0], "") for key in self._words("sent")}

    def _told(self) -> set[str]:
        with self.installation.sql() as ask:
            return {row["attempt_id"] for row in ask(TOLD)}

    def _words(self, word: str) -> set[str]:
        return {key for one, key in self._ledger() if one == word}

    def _ledger(self) -> list[tuple[str, str]]:
        if not self.installation.ledger.exists():
            return []
        return [tuple(line.split()) for line in self.installation.ledger.read_text().splitlines()]  # type: ignore[misc]
