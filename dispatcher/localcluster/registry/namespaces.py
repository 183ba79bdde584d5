"""The end of namespaces: one that is being deleted is emptied, and goes when nothing is left in it."""

import asyncio

from dispatcher.localcluster.registry import registry

_LOOK_S = 0.1
"""Between two looks at what still has to end: pods have a grace period."""


class Namespaces:
    """Those that are being deleted."""

    def __init__(self, rules: registry.Registry) -> None:
        self._rules = rules
        self._terminating: set[str] = set()
        self._changed = asyncio.Event()
        rules.hooks.namespace_deleting = self._begin

    def _begin(self, name: str) -> None:
        self._terminating.add(name)
        self._changed.set()

    async def empty(self) -> None:
        """Deletes what is in them. Runs until cancelled."""
        while True:
            if not self._terminating:
                self._changed.clear()
                await self._changed.wait()
            for name in tuple(self._terminating):
                if self._rules.finish_namespace(name):
                    self._terminating.discard(name)
            # Pods have their grace period: what is left is looked at until it has gone.
            await asyncio.sleep(_LOOK_S)
