"""Waiting for the API server."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from dispatcher import errors
from dispatcher.kubeapi import connect
from tests.fake_api import FakeApi


@dataclass(frozen=True)
class Wanted:
    """Which server is wanted, as settings say it."""

    kubeconfig: Path | None = None
    context: str | None = None
    in_cluster: bool | None = False
    verify_ssl: bool = True


def test_a_server_that_was_never_asked_is_not_called_away() -> None:
    """Who wants to know waits for the first try; a dispatcher's log does not begin with an outage."""

    async def test() -> None:
        api = FakeApi()
        asked = api.hold("read_version")
        connection = connect.Connection(Wanted())
        connecting = asyncio.create_task(connection.answers(api))  # type: ignore[arg-type]
        checking = asyncio.create_task(connection.check())
        await asyncio.sleep(0.01)
        assert not checking.done()
        asked.set()
        await asyncio.wait_for(asyncio.gather(connecting, checking), 5)

    asyncio.run(test())


def test_what_keeps_us_from_the_server_is_said_in_its_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once, by the log, and to whoever asks."""
    missing = tmp_path / "kubeconfig"

    async def test() -> None:
        connection = connect.Connection(Wanted(kubeconfig=missing))
        waiting = asyncio.create_task(connection.access())
        with pytest.raises(errors.ApiUnavailable, match=str(missing)):
            await asyncio.wait_for(connection.check(), 5)
        waiting.cancel()

    asyncio.run(test())
    assert [record.levelname for record in caplog.records if str(missing) in record.getMessage()] == ["WARNING"]
