"""FakeApi: what `client.KubeClient` gives, from memory: for unit tests of whatever talks to the API server.

It has the methods of the client with the same signatures (`tests/unit/kubeapi/test_fake_api.py` holds them together,
`tests/contract/test_fake_api.py` compares it with a real client at the local cluster). Behind each method stands what
a server does: versions that grow, uids, 404, 409, 410, 422, preconditions, graceful deletion, selectors, a watch that
goes on from a version. No kubelet: a test moves pods by `run`, `end`, `set_status` and `remove`.

    api = fake_api.FakeApi()
    api.fail("create_pod", errors.ApiUnavailable("gone"), takes_effect=True)    # the pod is made, the answer lost
    gate = api.hold("create_pod")                                               # calls wait until gate.set()
    api.run("pod-1"); api.end("pod-1", exit_code=0, message="...")
    api.forget_history(); api.end_watches(errors.ApiUnavailable("broke"))
"""

import asyncio
import copy
import json
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from dispatcher import errors
from dispatcher.kubeapi import client
from dispatcher.localcluster.apiserver import tables
from dispatcher.localcluster.objects import refusal, selectors, times

Json = dict[str, Any]
Key = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class _Change:
    """One step of the history of pods; `before` None: it was created, `after` None: it was deleted."""

    version: int
    before: Json | None
    after: Json | None
    last: Json
    """The object as it was left."""


class FakeApi:
    """An API server and its client in one object. Belongs to the event loop that uses it."""

    def __init__(self, *, denied: Sequence[tuple[str, str]] = ()) -> None:
        self.pods: dict[Key, Json] = {}
        """(namespace, name) -> the pod as the server has it. Read it; change it by the verbs below."""
        self.secrets: dict[Key, Json] = {}
        self.config_maps: dict[Key, Json] = {}
        self.events: list[Json] = []
        self.logs: dict[tuple[str, str, str], bytes] = {}
        """(namespace, pod, container) -> its log."""
        self.denied = set(denied)
        """(verb, resource) such as `("list", "pods/log")` that `may` says no to."""
        self.counts: Counter[tuple[str, str]] = Counter()
        """As the client's: always empty."""
        self.calls: Counter[str] = Counter()
        """How often each method was called."""
        self._version = 100
        self._oldest = 0
        self._changes: list[_Change] = []
        self._bookmarks = 0
        self._endings: list[Exception | None] = []
        self._news = asyncio.Event()
        self._faults: defaultdict[str, deque[tuple[Exception, bool]]] = defaultdict(deque)
        self._gates: dict[str, asyncio.Event] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    # --- what a test does to it ---

    def fail(self, call: str, *faults: Exception, times: int = 1, takes_effect: bool = False) -> None:
        """The next calls of a method raise `faults`, one after the other, all of them `times` times.

        With `takes_effect` the server does what it was asked before the answer is lost.
        """
        self._faults[call].extend((fault, takes_effect) for _ in range(times) for fault in faults)

    def hold(self, call: str) -> asyncio.Event:
        """Calls of a method wait, before they do anything, until the event is set."""
        return self._gates.setdefault(call, asyncio.Event())

    def add_pod(self, manifest: Mapping[str, Any], namespace: str = "default") -> Json:
        """A pod that somebody else created."""
        return self._created("pods", self.pods, namespace, copy.deepcopy(dict(manifest)))

    def run(self, name: str, namespace: str = "default", *, container: str = "base", node: str = "node-1") -> None:
        """The pod is on a node and its container runs."""
        self.pods[namespace, name]["spec"]["nodeName"] = node
        state = {"running": {"startedAt": times.write(times.now())}}
        self.set_status(name, namespace, phase="Running", containerStatuses=[_status(container, state)])

    def end(
        self,
        name: str,
        namespace: str = "default",
        *,
        exit_code: int = 0,
        message: str = "",
        reason: str = "",
        container: str = "base",
    ) -> None:
        """The container of the pod ended; `message` is its termination message."""
        now = times.write(times.now())
        why = reason or ("Error" if exit_code else "Completed")
        ended = {"exitCode": exit_code, "reason": why, "message": message, "startedAt": now, "finishedAt": now}
        phase = "Failed" if exit_code else "Succeeded"
        self.pods[namespace, name]["spec"].setdefault("nodeName", "node-1")
        self.set_status(name, namespace, phase=phase, containerStatuses=[_status(container, {"terminated": ended})])

    def set_status(self, name: str, namespace: str = "default", **status: Any) -> None:
        """Fields of the pod's status, in Kubernetes' spelling."""
        pod = copy.deepcopy(self.pods[namespace, name])
        pod["status"] |= status
        self._store((namespace, name), pod)

    def remove(self, name: str, namespace: str = "default") -> None:
        """The pod is no more: its kubelet is done with it, or somebody deleted it by force."""
        pod = copy.deepcopy(self.pods[namespace, name])
        pod["metadata"].setdefault("deletionTimestamp", times.write(times.now()))
        self._store((namespace, name), None, last=pod)

    def add_event(self, pod: Mapping[str, Any], *, reason: str, message: str, type: str = "Warning") -> None:  # noqa: A002
        """An event about a pod."""
        now = times.write(times.now())
        meta = pod["metadata"]
        about = {"kind": "Pod", "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]}
        told = {"reason": reason, "message": message, "type": type, "count": 1}
        times_of = {"firstTimestamp": now, "lastTimestamp": now}
        name = {"metadata": {"name": f"{meta['name']}.{len(self.events)}", "namespace": meta["namespace"]}}
        self.events.append(name | {"involvedObject": about} | told | times_of)

    def bookmark(self) -> None:
        """All watches get a bookmark of the present version."""
        self._bookmarks += 1
        self._ring()

    def forget_history(self) -> None:
        """A watch that opens from a version before now is answered 410, as after a compaction."""
        self._version += 1
        self._oldest = self._version

    def end_watches(self, error: Exception | None = None) -> None:
        """All open watches end as the server ends them, or break with `error`."""
        self._endings.append(error)
        self._ring()

    # --- the client's methods ---

    async def create_pod(self, namespace: str, manifest: bytes, *, dry_run: bool = False) -> Json:
        fault = await self._called("create_pod")
        made = self._created("pods", self.pods, namespace, json.loads(manifest), dry_run=dry_run)
        return _answer(fault, made)

    async def read_pod(self, namespace: str, name: str) -> Json:
        await self._called("read_pod")
        return copy.deepcopy(_found("pods", self.pods, namespace, name))

    find_pod = client.KubeClient.find_pod

    async def list_pods(self, namespace: str | None, *, selector: str) -> client.PodList:
        await self._called("list_pods")
        return client.PodList(pods=self._selected(namespace, selector), resource_version=str(self._version))

    async def list_words(self, namespace: str, *, selector: str) -> dict[str, str]:
        await self._called("list_words")
        return {pod["metadata"]["name"]: tables.pod_status(pod) for pod in self._selected(namespace, selector)}

    async def watch_pods(
        self, namespace: str | None, *, selector: str, resource_version: str, silence_s: float
    ) -> AsyncIterator[Json]:
        await self._called("watch_pods")
        if (since := int(resource_version)) < self._oldest:
            message = f"too old resource version: {since} ({self._oldest})"
            raise errors.ApiError(410, "Expired", message)
        clauses = selectors.parse_labels(selector)
        endings, bookmarks = len(self._endings), self._bookmarks
        position = next((at for at, change in enumerate(self._changes) if change.version > since), len(self._changes))
        while True:
            while position < len(self._changes):
                if event := _event(self._changes[position], namespace, clauses):
                    yield event
                position += 1
            if bookmarks < self._bookmarks:
                bookmarks = self._bookmarks
                meta = {"resourceVersion": str(self._version)}
                yield {"type": "BOOKMARK", "object": {"kind": "Pod", "apiVersion": "v1", "metadata": meta}}
                continue
            if endings < len(self._endings):
                if error := self._endings[endings]:
                    raise error
                return
            try:
                await asyncio.wait_for(self._news.wait(), silence_s)
            except TimeoutError as error:
                raise errors.ApiUnavailable("the watch broke: no answer in time") from error

    async def patch_pod(self, namespace: str, name: str, patch: Mapping[str, Any]) -> Json:
        fault = await self._called("patch_pod")
        pod = _patched("pods", "Pod", _found("pods", self.pods, namespace, name), patch)
        self._store((namespace, name), pod)
        return _answer(fault, pod)

    async def delete_pod(self, namespace: str, name: str, *, uid: str | None, grace_s: int | None = None) -> None:
        fault = await self._called("delete_pod")
        pod = self.pods.get((namespace, name))
        if pod is not None and uid in (None, pod["metadata"]["uid"]):
            self._delete(pod, grace_s)
        _answer(fault, {})

    async def delete_unchanged(self, pod: Mapping[str, Any]) -> bool:
        fault = await self._called("delete_unchanged")
        meta = pod["metadata"]
        present = self.pods.get((meta["namespace"], meta["name"]))
        same = ("uid", "resourceVersion")
        if present is not None and any(present["metadata"][field] != meta[field] for field in same):
            return False
        if present is not None:
            self._delete(present, None)
        _answer(fault, {})
        return True

    async def put_secret(self, secret: Mapping[str, Any]) -> None:
        fault = await self._called("put_secret")
        namespace, name = secret["metadata"]["namespace"], secret["metadata"]["name"]
        if (namespace, name) in self.secrets:
            self.secrets[namespace, name] = _merged(self.secrets[namespace, name], secret)
        else:
            self._created("secrets", self.secrets, namespace, copy.deepcopy(dict(secret)))
        _answer(fault, {})

    async def read_secret(self, namespace: str, name: str) -> Json:
        await self._called("read_secret")
        return copy.deepcopy(_found("secrets", self.secrets, namespace, name))

    async def read_config_map(self, namespace: str, name: str) -> Json:
        await self._called("read_config_map")
        return copy.deepcopy(_found("configmaps", self.config_maps, namespace, name))

    async def create_config_map(self, namespace: str, config_map: Mapping[str, Any]) -> Json:
        fault = await self._called("create_config_map")
        made = self._created("configmaps", self.config_maps, namespace, copy.deepcopy(dict(config_map)))
        return _answer(fault, made)

    async def patch_config_map(self, namespace: str, name: str, patch: Mapping[str, Any]) -> Json:
        fault = await self._called("patch_config_map")
        found = _found("configmaps", self.config_maps, namespace, name)
        made = _patched("configmaps", "ConfigMap", found, patch)
        made["metadata"]["resourceVersion"] = self._next_version()
        self.config_maps[namespace, name] = made
        return _answer(fault, copy.deepcopy(made))

    async def read_log(
        self,
        namespace: str,
        name: str,
        *,
        container: str = "base",
        tail_lines: int | None = None,
        limit_bytes: int | None = None,
    ) -> bytes:
        await self._called("read_log")
        text = self._log(namespace, name, container)
        if tail_lines is not None:
            text = b"".join(text.splitlines(keepends=True)[-tail_lines:] if tail_lines else [])
        return text if limit_bytes is None else text[:limit_bytes]

    async def follow_log(self, namespace: str, name: str, *, container: str = "base") -> AsyncIterator[bytes]:
        await self._called("follow_log")
        for line in self._log(namespace, name, container).splitlines(keepends=True):
            yield line

    async def list_events(self, namespace: str, *, uid: str) -> list[Json]:
        await self._called("list_events")
        there = [event for event in self.events if event["metadata"]["namespace"] == namespace]
        return copy.deepcopy([event for event in there if event["involvedObject"]["uid"] == uid][: client.EVENTS])

    async def may(self, verb: str, resource: str, *, namespace: str | None, subresource: str = "") -> bool:
        await self._called("may")
        return (verb, f"{resource}/{subresource}" if subresource else resource) not in self.denied

    async def read_version(self) -> Json:
        await self._called("read_version")
        return {"major": "1", "minor": "36", "gitVersion": "v1.36.2"}

    # --- the server ---

    async def _called(self, call: str) -> Exception | None:
        """Counts, waits, and raises what was asked for; returns what is to be raised after the deed."""
        self.calls[call] += 1
        if gate := self._gates.get(call):
            await gate.wait()
        await asyncio.sleep(0)  # as with a network, others get a turn
        if not self._faults[call]:
            return None
        fault, takes_effect = self._faults[call].popleft()
        if not takes_effect:
            raise fault
        return fault

    def _next_version(self) -> str:
        self._version += 1
        return str(self._version)

    def _created(
        self, plural: str, there: dict[Key, Json], namespace: str, made: Json, *, dry_run: bool = False
    ) -> Json:
        name = made["metadata"]["name"]
        if (namespace, name) in there:
            raise _error(refusal.already_exists(plural, name))
        times_of = {"uid": str(uuid.uuid4()), "creationTimestamp": times.write(times.now())}
        made["metadata"] |= times_of | {"namespace": namespace}
        if there is self.pods:
            made["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
        if dry_run:
            return made
        if there is self.pods:
            self._store((namespace, name), made)
        else:
            made["metadata"]["resourceVersion"] = self._next_version()
            there[namespace, name] = made
        return copy.deepcopy(made)

    def _store(self, key: Key, pod: Json | None, *, last: Json | None = None) -> None:
        """The one place where pods change, and where watches hear of it."""
        before, version = self.pods.get(key), self._next_version()
        after = pod if pod is not None else last
        assert after is not None
        after["metadata"]["resourceVersion"] = version
        if pod is None:
            del self.pods[key]
        else:
            self.pods[key] = pod
        kept = copy.deepcopy(after)
        change = _Change(version=int(version), before=before, after=None if pod is None else kept, last=kept)
        self._changes.append(change)
        self._ring()

    def _delete(self, pod: Json, grace_s: int | None) -> None:
        """A pod that nothing runs of goes at once; another one is marked, and goes when its kubelet is done."""
        meta = pod["metadata"]
        is_idle = not pod["spec"].get("nodeName") or pod["status"]["phase"] in ("Succeeded", "Failed")
        if is_idle or grace_s == 0:
            self.remove(meta["name"], meta["namespace"])
            return
        marked = copy.deepcopy(pod)
        marked["metadata"].setdefault("deletionTimestamp", times.write(times.now()))
        marked["metadata"]["deletionGracePeriodSeconds"] = 30 if grace_s is None else grace_s
        self._store((meta["namespace"], meta["name"]), marked)

    def _selected(self, namespace: str | None, selector: str) -> list[Json]:
        clauses = selectors.parse_labels(selector)
        return copy.deepcopy([pod for pod in self.pods.values() if _is_seen(pod, namespace, clauses)])

    def _log(self, namespace: str, name: str, container: str) -> bytes:
        _found("pods", self.pods, namespace, name)
        if (namespace, name, container) not in self.logs:
            message = f'container "{container}" in pod "{name}" is waiting to start: ContainerCreating'
            raise errors.ApiError(400, "BadRequest", message)
        return self.logs[namespace, name, container]

    def _ring(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def _status(container: str, state: Json) -> Json:
    return {"name": container, "state": state, "ready": "running" in state, "restartCount": 0, "image": "image"}


def _answer(fault: Exception | None, made: Json) -> Json:
    if fault is not None:
        raise fault
    return copy.deepcopy(made)


def _error(refused: refusal.Refusal) -> errors.ApiError:
    return errors.ApiError(refused.code, refused.reason, refused.message)


def _found(plural: str, there: Mapping[Key, Json], namespace: str, name: str) -> Json:
    if (namespace, name) not in there:
        raise _error(refusal.not_found(plural, name))
    return there[namespace, name]


def _patched(plural: str, kind: str, found: Json, patch: Mapping[str, Any]) -> Json:
    meta, asked = found["metadata"], patch.get("metadata") or {}
    if asked.get("uid") not in (None, meta["uid"]):
        cause = refusal.Cause("metadata.uid", "FieldValueInvalid", "field is immutable")
        raise _error(refusal.invalid(kind, meta["name"], [cause]))
    if asked.get("resourceVersion") not in (None, meta["resourceVersion"]):
        raise _error(refusal.modified(plural, meta["name"]))
    made: Json = _merged(found, patch)
    if "status" in found:
        made["status"] = copy.deepcopy(found["status"])  # a subresource of its own
    return made


def _merged(base: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7386)."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    made = copy.deepcopy(base) if isinstance(base, dict) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = _merged(made.get(key), value)
    return made


def _is_seen(pod: Json, namespace: str | None, clauses: Sequence[selectors.Requirement]) -> bool:
    meta = pod["metadata"]
    is_there = namespace in (None, meta["namespace"])
    return is_there and all(clause.holds(meta.get("labels") or {}) for clause in clauses)


def _event(change: _Change, namespace: str | None, clauses: Sequence[selectors.Requirement]) -> Json | None:
    """What a watch with that selector is sent of a change."""
    was = change.before is not None and _is_seen(change.before, namespace, clauses)
    is_now = change.after is not None and _is_seen(change.after, namespace, clauses)
    if is_now:
        return {"type": "MODIFIED" if was else "ADDED", "object": copy.deepcopy(change.after)}
    if not was:
        return None
    if change.after is None:
        return {"type": "DELETED", "object": copy.deepcopy(change.last)}
    left = copy.deepcopy(change.before or {})  # it left the selector: its last state inside, with the new version
    left["metadata"]["resourceVersion"] = str(change.version)
    return {"type": "DELETED", "object": left}
