"""The connection to the API server: found and tried until it answers, however long that takes."""

import asyncio
import logging

from dispatcher import errors
from dispatcher.kubeapi import client
from dispatcher.options import Options

logger = logging.getLogger(__name__)

AGAIN_S = 2.0


class Connection:
    """How to reach the API server, and what keeps us from it. On the loop's thread."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.trouble: str | None = "not connected yet"
        """What is wrong now; None once the server has answered."""

    async def access(self) -> client.Access:
        """Address and credentials, as soon as the kubeconfig or the service account gives them."""
        while True:
            try:
                return await asyncio.to_thread(client.connect_as, self._options)
            except errors.DispatcherError as error:
                await self._wait(error)

    async def answers(self, api: client.KubeClient) -> None:
        """Returns once the server has told its version."""
        while True:
            try:
                version = await api.read_version()
            except (errors.ApiError, errors.ApiUnavailable) as error:
                await self._wait(error)
            else:
                self.trouble = None
                logger.info("connected to Kubernetes version=%s", version.get("gitVersion"))
                return

    async def _wait(self, error: Exception) -> None:
        if str(error) != self.trouble:
            logger.warning("waiting for Kubernetes: %s", error)
        self.trouble = str(error)
        await asyncio.sleep(AGAIN_S)
