"""Turns of the scheduler, one by one, on a real record: what it remembers never hides what the record knows."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from routing.authoring import loading, spec
from routing.config.sections import Scheduler as Limits
from routing.results import reported
from routing.router import Router
from routing.scheduling import renderer, scheduler
from routing.store.store import Store

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A record with one DAG: b after a."""
    store = Store.open(f"sqlite:///{tmp_path / 'podyard.db'}")
    store.upgrade()
    tasks = tuple(
        spec.TaskSpec(task_id=name, operator="python", upstream=upstream, inputs=())
        for name, upstream in (("a", ()), ("b", ("a",)))
    )
    store.save_dags(loading.Loaded((spec.DagSpec(dag_id="d", file="d.py", tasks=tasks),), ()), at=AT)
    yield store
    store.close()


class Turner:
    """A scheduler, and a clock that the test moves."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._scheduler = scheduler.Scheduler(
            router=Router.from_mapping({}), limits=Limits(), render=renderer.Renderer()
        )
        self.now_mono_s = 0.0

    def turn(self, *heard: reported.Outcome, is_poll: bool = False) -> list[str]:
        """One turn; gives the attempts that it records."""
        with self._store.writing() as book:
            now = AT + timedelta(seconds=self.now_mono_s)
            result = self._scheduler.turn(book, heard, now=now, now_mono_s=self.now_mono_s, is_poll=is_poll)
            book.mark_sent([one.id for one in result.unsent], at=now)
        return [one.id for one in result.unsent]

    def success(self, attempt_id: str) -> reported.EndReport:
        return reported.EndReport(
            attempt_id=attempt_id, verdict="succeeded", at=AT + timedelta(seconds=self.now_mono_s)
        )


def test_an_end_that_comes_in_the_turn_in_which_its_run_is_read_again_is_followed(store: Store) -> None:
    """Both the next task and the end of the run: what was merged is written before the record is asked."""
    turner = Turner(store)
    run = store.create_run("d", at=AT)
    (first,) = turner.turn(is_poll=True)
    turner.now_mono_s += scheduler.AUDIT_S + 1
    (second,) = turner.turn(turner.success(first), is_poll=True)
    turner.now_mono_s += scheduler.AUDIT_S + 1
    turner.turn(turner.success(second), is_poll=True)
    with store.reading() as book:
        found = book.run(run.id)
    assert found is not None
    assert found.state == "success"
