"""The control command for logs: it never waits, it is bounded, and what nobody fetches is given up."""

import concurrent.futures
from collections.abc import Coroutine
from typing import Any

from celery.worker.control import Panel

from dispatcher import errors
from dispatcher.finishing.log_page import Page
from dispatcher.worker import log_command

Future = concurrent.futures.Future[Page | None]


class Loop:
    """Stands for the other thread and what reads there: readings are done when the test says so."""

    def __init__(self) -> None:
        self.begun: list[Future] = []

    def start_asking(self, question: Coroutine[Any, Any, Page | None]) -> Future:
        question.close()
        self.begun.append(concurrent.futures.Future())
        return self.begun[-1]

    async def log_page(self, task_id: str, offset: int) -> Page | None:
        raise AssertionError(f"not on this thread: {task_id} {offset}")


def reader() -> tuple[log_command.LogReader, Loop]:
    loop = Loop()
    return log_command.LogReader(loop, loop), loop


def test_the_first_answer_is_that_it_is_read_and_a_later_one_has_it() -> None:
    """One reading, however often it is asked meanwhile; the next question reads anew."""
    answers, loop = reader()
    assert [answers.answer("a", 0)["state"] for _ in range(3)] == ["reading"] * 3
    loop.begun[0].set_result(Page(source="pod x/y", text="hello\n", next_offset=6))
    assert answers.answer("a", 0) == {"state": "ready", "source": "pod x/y", "text": "hello\n", "next": 6}
    assert answers.answer("a", 0) == {"state": "reading"}
    assert len(loop.begun) == 2


def test_pages_are_read_apart() -> None:
    """The second piece of a log is another question."""
    answers, loop = reader()
    answers.answer("a", 0)
    answers.answer("a", 6)
    assert len(loop.begun) == 2


def test_what_is_not_here_and_what_cannot_be_read_is_said() -> None:
    """Others may have it."""
    answers, loop = reader()
    for name in ("a", "b", "c"):
        answers.answer(name, 0)
    loop.begun[0].set_result(None)
    loop.begun[1].set_exception(errors.ApiUnavailable("the API server is away"))
    loop.begun[2].cancel()
    assert answers.answer("a", 0) == {"state": "unknown"}
    assert answers.answer("b", 0) == {"state": "failed", "text": "the API server is away"}
    assert answers.answer("c", 0)["state"] == "failed"


def test_no_more_than_a_few_are_read_at_once() -> None:
    """Others wait for their turn: a page of many logs cannot bury the API server."""
    answers, loop = reader()
    for number in range(log_command.AT_ONCE + 5):
        answers.answer(f"task-{number}", 0)
    assert len(loop.begun) == log_command.AT_ONCE
    loop.begun[0].set_result(None)
    answers.answer("task-0", 0)
    answers.answer("one more", 0)
    assert len(loop.begun) == log_command.AT_ONCE + 1


def test_celery_knows_the_command() -> None:
    """By the name that the executor for Airflow asks for."""
    from routing.airflow import dispatcherlogs

    assert dispatcherlogs.COMMAND == log_command.NAME
    assert Panel.meta[log_command.NAME].type == "inspect"


def test_a_worker_without_pods_has_no_logs() -> None:
    """A Celery worker that imports us by chance answers, too."""

    class State:
        class consumer:  # noqa: N801 - Celery's name
            pool = object()

    assert log_command.podyard_log(State(), task_id="a") == {"state": "unknown"}
