"""The line between the node and the API server: up, or down as when a node is lost."""

from dispatcher.localcluster.objects import notifier


class Link:
    """While it is down the kubelet receives nothing and writes nothing; its pods go on."""

    def __init__(self) -> None:
        self.up = True
        self._changed = notifier.Notifier()

    def set(self, *, up: bool) -> None:
        """Cuts or mends it."""
        self.up = up
        self._changed.notify()

    async def until_up(self) -> None:
        """Returns at once while it is up."""
        while not self.up:
            await self._changed.wait()
