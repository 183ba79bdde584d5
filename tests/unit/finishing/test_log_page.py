"""Logs in pieces: of a pod that runs, of one that waits, of one that is gone."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from dispatcher import errors
from dispatcher.attempts.attempt import Attempt, Pod
from dispatcher.attempts.limits import BlockedReason
from dispatcher.finishing import cleanup, log_page
from tests import builders, fake_api


def page(api: fake_api.FakeApi, one: Attempt) -> log_page.Page:
    return asyncio.run(log_page.of_attempt(api, one))  # type: ignore[arg-type]


async def running(log: bytes) -> tuple[fake_api.FakeApi, Attempt]:
    api = fake_api.FakeApi()
    api.add_pod({"metadata": {"name": "a-pod"}, "spec": {"containers": [{"name": "base", "image": "i"}]}})
    api.run("a-pod")
    api.logs["default", "a-pod", "base"] = log
    return api, builders.attempt(pod=Pod(name="a-pod", namespace="default", uid="a-uid"))


def test_of_a_pod_that_runs_the_newest_lines_are_given() -> None:
    """So many as fit."""

    async def read(log: bytes) -> log_page.Page:
        api, one = await running(log)
        return await log_page.of_attempt(api, one)  # type: ignore[arg-type]

    assert asyncio.run(read(b"one\ntwo\n")) == log_page.Page(source="pod default/a-pod", text="one\ntwo\n")
    long = b"".join(b"%06d %s\n" % (number, b"x" * 992) for number in range(2_000))
    found = asyncio.run(read(long)).text.splitlines()
    assert (len(found), found[-1][:6]) == (500, "001999")


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({}, "waits to be launched\n"),
        (
            {"blocked": BlockedReason(reason="QuotaExceeded", text="pods:\n2 of 2")},
            "waits: QuotaExceeded: pods: 2 of 2\n",
        ),
    ],
)
def test_an_attempt_without_a_pod_says_what_it_waits_for(facts: dict[str, Any], text: str) -> None:
    """In one line, and nobody is asked."""
    api = fake_api.FakeApi()
    assert page(api, builders.attempt(**facts)) == log_page.Page(source="dispatcher", text=text)
    assert not api.calls


@pytest.mark.parametrize("status", [400, 404])
def test_a_container_that_has_not_started_has_no_log(status: int) -> None:
    """The API server answers 400; a pod that went in this moment is a 404."""

    async def read() -> log_page.Page:
        api, one = await running(b"")
        api.fail("read_log", errors.ApiError(status, "BadRequest", "is waiting to start"))
        return await log_page.of_attempt(api, one)  # type: ignore[arg-type]

    assert asyncio.run(read()).text == "waits to be launched\n"


def test_an_api_server_that_is_away_is_an_error() -> None:
    """Who asks is told, and does not take it for an empty log."""

    async def read() -> None:
        api, one = await running(b"")
        api.fail("read_log", errors.ApiUnavailable("gone"))
        await log_page.of_attempt(api, one)  # type: ignore[arg-type]

    with pytest.raises(errors.ApiUnavailable):
        asyncio.run(read())


def read_all(folder: Path) -> list[log_page.Page]:
    pages, offset = [], 0
    while True:
        one = asyncio.run(log_page.of_file(folder, "an-id", offset=offset))
        assert one is not None
        pages.append(one)
        if one.next_offset is None:
            return pages
        offset = one.next_offset


@pytest.mark.parametrize("line", ["größe " * 50, "x" * 700_000])
def test_a_saved_log_comes_in_pieces_that_make_it_whole(tmp_path: Path, line: str) -> None:
    """Cut between lines, so that no character is torn; a line that is longer than a piece is cut all the same."""
    text = f"{line}\n" * (1 if len(line) > 1_000 else 3_000) + "the end"
    cleanup.log_path(tmp_path, "an-id").write_text(text)
    pages = read_all(tmp_path)
    assert "".join(one.text for one in pages) == text
    assert len(pages) > 2
    assert all(len(one.text.encode()) <= log_page.PAGE_BYTES for one in pages)


def test_what_was_not_saved_is_not_there(tmp_path: Path) -> None:
    """Neither without a folder nor without a file; an id of somebody's choice leads out of no folder."""
    (tmp_path / "secret.log").write_text("no")
    folder = tmp_path / "logs"
    folder.mkdir()
    assert asyncio.run(log_page.of_file(None, "an-id", offset=0)) is None
    assert asyncio.run(log_page.of_file(folder, "an-id", offset=0)) is None
    assert asyncio.run(log_page.of_file(folder, "../secret", offset=0)) is None
