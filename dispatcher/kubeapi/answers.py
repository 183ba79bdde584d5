"""Answers: the bytes of an API server -> the object that a call promises, or `Unusable`. Pure.

An answer is what its kind says: a proxy's login page, half an object, an object of another kind or another name under a
status of 200 says nothing about what the server did, and is as good as no answer. What is checked is what this package
and its callers rely on; the rest of an object goes through as it came. No message quotes a value: it may be a secret.

https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md#types-kinds
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

Json = dict[str, Any]
Text = Annotated[str, msgspec.Meta(min_length=1)]
WATCHED = ("ADDED", "MODIFIED", "DELETED")
UNREADABLE = "UNREADABLE"
"""The type of a watch event that could not be read."""


class Unusable(ValueError):
    """The answer is not what the call promises; the message says where."""


class _Metadata(msgspec.Struct, rename="camel"):
    name: Text
    uid: Text
    # Never empty: a watch from an empty version begins anywhere, and says nothing of what it has left out.
    resource_version: Text
    namespace: Text
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None


class _DryMetadata(msgspec.Struct):
    """Of a dry run: stored nowhere, so without a version."""

    name: Text
    namespace: Text


class _ListMetadata(msgspec.Struct, rename={"resource_version": "resourceVersion", "token": "continue"}):
    resource_version: Text
    token: str | None = None


class _Item(msgspec.Struct):
    """A pod without its kind, as lists have it."""

    metadata: _Metadata
    spec: Json
    status: Json | None = None


class _Pod(_Item, kw_only=True):
    kind: Literal["Pod"]


class _DryPod(msgspec.Struct):
    kind: Literal["Pod"]
    metadata: _DryMetadata
    spec: Json


class _PodList(msgspec.Struct):
    kind: Literal["PodList"]
    metadata: _ListMetadata
    # Go writes an empty list as `null`.
    items: list[_Item] | None = None


class _Secret(msgspec.Struct):
    kind: Literal["Secret"]
    metadata: _Metadata
    data: dict[str, str] | None = None


class _ConfigMap(msgspec.Struct):
    kind: Literal["ConfigMap"]
    metadata: _Metadata
    data: dict[str, str] | None = None


class _EventOfObject(msgspec.Struct, rename="camel"):
    metadata: Json
    reason: str | None = None
    message: str | None = None
    type: str | None = None
    count: int | None = None
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    event_time: str | None = None


class _EventList(msgspec.Struct):
    kind: Literal["EventList"]
    items: list[_EventOfObject] | None = None


class _Column(msgspec.Struct):
    name: str


class _Row(msgspec.Struct):
    cells: list[Any]


class _Table(msgspec.Struct, rename="camel"):
    kind: Literal["Table"]
    column_definitions: list[_Column]
    rows: list[_Row] | None = None


class _Success(msgspec.Struct):
    kind: Literal["Status"]
    status: Literal["Success"]


class _ReviewStatus(msgspec.Struct):
    allowed: bool


class _Review(msgspec.Struct):
    kind: Literal["SelfSubjectAccessReview"]
    status: _ReviewStatus


class _ServerVersion(msgspec.Struct, rename="camel"):
    git_version: Text


class _Failure(msgspec.Struct):
    kind: Literal["Status"]
    reason: str | None = None
    message: str | None = None


class _BookmarkMetadata(msgspec.Struct, rename="camel"):
    resource_version: Text


class _Bookmark(msgspec.Struct):
    metadata: _BookmarkMetadata


class _WatchEvent(msgspec.Struct):
    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    object: Json


def pod(body: bytes, *, namespace: str, name: str | None = None) -> Json:
    """One pod of that namespace, and of that name where it is known."""
    return _named(_checked(body, _Pod), namespace=namespace, name=name)


def dry_pod(body: bytes, *, namespace: str) -> Json:
    """A pod that would be created: without a version."""
    return _named(_checked(body, _DryPod), namespace=namespace, name=None)


def pods(body: bytes) -> tuple[list[Json], str, str | None]:
    """The pods of a page, its version, and the token of the next page."""
    page = _checked(body, _PodList)
    metadata = page["metadata"]
    # The last page has `continue: ""` or none.
    return page.get("items") or [], metadata["resourceVersion"], metadata.get("continue") or None


def words(body: bytes) -> dict[str, str]:
    """Pod -> its status in one word: of a table, or of a list where the server makes no tables."""
    answer = _decoded(body)
    if isinstance(answer, Mapping) and answer.get("kind") == "PodList":
        return {one["metadata"]["name"]: str((one.get("status") or {}).get("phase")) for one in pods(body)[0]}
    table = _convert(answer, _Table)
    columns = [column["name"] for column in table["columnDefinitions"]]
    rows = table.get("rows") or []
    try:
        name, status = columns.index("Name"), columns.index("Status")
        return {str(row["cells"][name]): str(row["cells"][status]) for row in rows}
    except (ValueError, IndexError):
        raise Unusable("a table of pods without their name or status") from None


def secret(body: bytes, *, namespace: str, name: str) -> Json:
    """One Secret."""
    return _named(_checked(body, _Secret), namespace=namespace, name=name)


def config_map(body: bytes, *, namespace: str, name: str | None = None) -> Json:
    """One ConfigMap."""
    return _named(_checked(body, _ConfigMap), namespace=namespace, name=name)


def events(body: bytes) -> list[Json]:
    """Events about an object."""
    found: list[Json] = _checked(body, _EventList).get("items") or []
    return found


def deleted(body: bytes) -> None:
    """What a delete gives: the object as it goes, or success."""
    answer = _decoded(body)
    is_status = isinstance(answer, Mapping) and answer.get("kind") == "Status"
    _convert(answer, _Success if is_status else _Pod)


def is_allowed(body: bytes) -> bool:
    """What the server says to a question about our permissions."""
    allowed: bool = _checked(body, _Review)["status"]["allowed"]
    return allowed


def version(body: bytes) -> Json:
    """The version of the server."""
    return _checked(body, _ServerVersion)


def failure(body: bytes) -> tuple[str | None, str | None]:
    """Reason and message of an answer that is an error."""
    status = _checked(body, _Failure)
    return status.get("reason"), status.get("message")


def watch_event(line: bytes) -> Json:
    """One line of a watch, or an event of the type `UNREADABLE` whose object has a message; raises nothing."""
    try:
        event = _checked(line, _WatchEvent)
        if event["type"] in WATCHED:
            # `ERROR` is not checked: its object is a Status with the
            # code, 410 among them, which the watcher reads itself.
            _convert(event["object"], _Item)
        elif event["type"] == "BOOKMARK":
            _convert(event["object"], _Bookmark)
    except Unusable as error:
        return {"type": UNREADABLE, "object": {"message": str(error)}}
    return event


def _checked(body: bytes, shape: type[msgspec.Struct]) -> Json:
    return _convert(_decoded(body), shape)


def _decoded(body: bytes) -> Any:
    if not body:
        raise Unusable("the answer is empty")
    try:
        return msgspec.json.decode(body)
    except UnicodeDecodeError:
        raise Unusable("the answer is not UTF-8") from None
    # RecursionError: JSON that is nested too deep for the
    # decoder. It would end the loop that reads, not the one call.
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unusable(f"the answer is not valid JSON: {error}") from None


def _convert(answer: Any, shape: type[msgspec.Struct]) -> Json:
    try:
        # The result is thrown away: callers need the fields that our shapes do not list, too.
        msgspec.convert(answer, shape)
    except msgspec.ValidationError as error:
        kind = answer.get("kind") if isinstance(answer, Mapping) else None
        what = f"the kind {kind!r:.80}" if isinstance(kind, str) else "no kind"
        raise Unusable(f"the answer is not what it should be: {error} (it has {what})") from None
    checked: Json = answer
    return checked


def _named(thing: Json, *, namespace: str, name: str | None) -> Json:
    metadata = thing["metadata"]
    # A cache or a gateway that mixes answers up must not make one attempt out of another's pod.
    if metadata["namespace"] != namespace or name not in (None, metadata["name"]):
        raise Unusable("the answer is about another object")
    return thing
