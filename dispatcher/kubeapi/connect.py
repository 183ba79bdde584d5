"""The connection to the API server: found and tried until it answers, however long that takes."""

import asyncio
import logging
from typing import Any

from dispatcher import errors, retry
from dispatcher.kubeapi import client, server_access

logger = logging.getLogger(__name__)

AGAIN = retry.Backoff(first_s=2.0, last_s=2.0, jitter=lambda: 0.0)
"""A server that starts is found soon; one question every two seconds costs it nothing."""


class Connection:
    """How to reach the API server, and what keeps us from it. On the loop's thread."""

    def __init__(self, wanted: server_access.Wanted) -> None:
        self._wanted = wanted
        self._tried = asyncio.Event()
        self.trouble: str | None = "not connected yet"
        """What is wrong now; None once the server has answered."""

    async def access(self) -> server_access.Access:
        """Address and credentials, as soon as the kubeconfig or the service account gives them."""
        access: server_access.Access = await retry.until_done(
            lambda: asyncio.to_thread(server_access.connect_as, self._wanted),
            catch=errors.DispatcherError,
            backoff=AGAIN,
            on_failure=self._failed,
        )
        for note in access.notes:
            logger.info("kubeconfig: %s", note)
        return access

    async def answers(self, api: client.KubeClient) -> None:
        """Returns once the server has told its version."""
        version: dict[str, Any] = await retry.until_done(
            api.read_version, catch=(errors.ApiError, errors.ApiUnavailable), backoff=AGAIN, on_failure=self._failed
        )
        self.trouble = None
        self._tried.set()
        logger.info("connected to Kubernetes version=%s", version.get("gitVersion"))

    async def check(self) -> None:
        """Raises ApiUnavailable with what keeps us from the server, once there was a first try; it waits for that."""
        await self._tried.wait()
        if self.trouble is not None:
            raise errors.ApiUnavailable(self.trouble)

    def _failed(self, failure: retry.Failure) -> None:
        if str(failure.error) != self.trouble:
            logger.warning("waiting for Kubernetes: %s", failure.error)
        self.trouble = str(failure.error)
        self._tried.set()
