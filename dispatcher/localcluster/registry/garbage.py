"""Garbage collection: what was made for an owner goes after its last owner is gone, as on a real cluster.

In the background, a moment later. `blockOwnerDeletion` is not honoured: an owner never waits for what it owns.
https://kubernetes.io/docs/concepts/architecture/garbage-collection/
"""

from dispatcher.localcluster.objects import notifier, resources, store
from dispatcher.localcluster.registry import registry


class Garbage:
    """Is notified of owners that went and of objects that were created without one."""

    def __init__(self, rules: registry.Registry) -> None:
        self._rules = rules
        self._suspects: set[tuple[str, str, str]] = set()
        self._changed = notifier.Notifier()
        rules.hooks.dependents_changed = self._suspect

    def _suspect(self, keys: set[tuple[str, str, str]]) -> None:
        self._suspects |= keys
        self._changed.notify()

    async def collect(self) -> None:
        """Looks at each object whose owners changed. Runs until cancelled."""
        while True:
            # Deleting one object makes suspects of those that it owns: chains are followed to their end.
            while self._suspects:
                plural, namespace, name = self._suspects.pop()
                resource = resources.BY_PLURAL[plural]
                found = self._rules.store.get(resource, namespace, name)
                if found is not None and found.owners:
                    self._judge(resource, found)
            await self._changed.wait()

    def _judge(self, resource: resources.Resource, found: store.Snapshot) -> None:
        """An object with no owner left goes; one that has another loses only the reference."""
        # By uid alone: an owner that was deleted and made again under its name is another one.
        living = [uid for uid in found.owners if self._rules.store.is_known(uid)]
        if not living:
            self._rules.delete(resource, found, registry.DeleteOptions())
        elif len(living) < len(found.owners):
            thing = found.read()
            references = thing["metadata"]["ownerReferences"]
            thing["metadata"]["ownerReferences"] = [one for one in references if one["uid"] in living]
            self._rules.store.put(resource, thing)
