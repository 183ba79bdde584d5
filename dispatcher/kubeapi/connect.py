"""The connection to the API server: found and tried until it answers, however long that takes."""

import asyncio
import logging

from dispatcher import errors, retry
from dispatcher.kubeapi import client, server_access

logger = logging.getLogger(__name__)

AGAIN = retry.Backoff(first_s=2.0, last_s=2.0, has_jitter=False)
"""A server that starts is found soon; one question every two seconds costs it nothing."""


class Connection:
    """How to reach the API server, and what keeps us from it. On the loop's thread."""

    def __init__(self, options: server_access.AccessOptions) -> None:
        self._options = options
        self._tried = asyncio.Event()
        self.trouble: str | None = "not connected yet"
        """What is wrong now; None once the server has answered."""

    async def access(self) -> server_access.Access:
        """Address and credentials, as soon as the kubeconfig or the service account gives them."""
        async for one in retry.Tries(errors.DispatcherError, backoff=AGAIN):
            with one:
                # Reads files and may run a program for credentials: seconds in which the loop must turn.
                access = await asyncio.to_thread(server_access.connect_as, self._options)
            self._note(one.error)
        for note in access.notes:
            logger.info("kubeconfig: %s", note)
        return access

    async def answers(self, api: client.KubeClient) -> None:
        """Returns once the server has answered with its version."""
        async for one in retry.Tries((errors.ApiError, errors.ApiUnavailable), backoff=AGAIN):
            with one:
                version = await api.read_version()
            self._note(one.error)
        self.trouble = None
        self._tried.set()
        logger.info("connected to Kubernetes version=%s", version.get("gitVersion"))

    async def check(self) -> None:
        """Raises ApiUnavailable with what keeps us from the server, once there was a first try; it waits for that."""
        await self._tried.wait()
        if self.trouble is not None:
            raise errors.ApiUnavailable(self.trouble)

    def _note(self, error: Exception | None) -> None:
        if error is None:
            return
        # A server that is away for an hour is one line, not 1,800.
        if str(error) != self.trouble:
            logger.warning("waiting for Kubernetes: %s", error)
        self.trouble = str(error)
        self._tried.set()
