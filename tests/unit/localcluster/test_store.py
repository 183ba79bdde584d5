"""The store: one counter, changes that matter, a history with an end."""

from typing import Any

import pytest

from dispatcher.localcluster.objects import refusal, resources, selectors, store

MATCH = store.Match(resource=resources.CONFIGMAPS)


def _thing(name: str = "a", **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "n", "uid": "u", "labels": labels}}


def test_versions_grow_over_all_resources() -> None:
    """Each change has a version of its own; writing the same changes nothing."""
    objects = store.Store()
    first = objects.put(resources.CONFIGMAPS, _thing())
    second = objects.put(resources.SECRETS, _thing())
    assert second.version == first.version + 1
    assert objects.put(resources.CONFIGMAPS, first.read()) is first
    assert objects.version == second.version


def test_what_is_read_is_the_reader_s_own() -> None:
    """Nobody changes what another one reads."""
    objects = store.Store()
    snapshot = objects.put(resources.CONFIGMAPS, _thing())
    snapshot.read()["metadata"]["name"] = "changed"
    assert snapshot.read()["metadata"]["name"] == "a"


def test_a_forgotten_version_is_410() -> None:
    """The history has an end, and says so; from there on nothing is missing."""
    objects = store.Store(history_changes=10)
    start = objects.version
    for number in range(100):
        objects.put(resources.CONFIGMAPS, _thing(count=str(number)))
    collection = objects.of(resources.CONFIGMAPS)
    with pytest.raises(refusal.Refusal) as error:
        collection.since(start)
    assert error.value.code == 410
    kept = [change.after.version for change in collection.since(collection.forgotten)]
    assert kept == list(range(collection.forgotten + 1, objects.version + 1))
    assert 10 <= len(kept) <= 13


def test_a_selector_sees_objects_come_and_go() -> None:
    """ADDED when a label begins to match, DELETED with the old state when it ends."""
    objects = store.Store()
    match = store.Match(resource=resources.CONFIGMAPS, labels=selectors.parse_labels("on"))
    start = objects.version
    for labels in ({}, {"on": "1"}, {"on": "2"}, {}, {"on": "3"}):
        last = objects.put(resources.CONFIGMAPS, _thing(**labels))
    objects.remove(resources.CONFIGMAPS, last)
    seen = [store.watch_event(change, match) for change in objects.of(resources.CONFIGMAPS).since(start)]
    kinds = [event[0] if event else None for event in seen]
    assert kinds == [None, "ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]
    left = seen[3]
    assert left is not None
    assert b'"on":"2"' in left[1]
