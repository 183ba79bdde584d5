"""Values come back from a pod as from a Celery worker: whatever Celery's JSON takes, and nothing else."""

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import math
import uuid
from typing import Any, NamedTuple

import pytest
from celery import Celery
from celery.canvas import chain, group
from hypothesis import given
from hypothesis import strategies as st
from kombu import serialization

from dispatcher.pod import bounds
from dispatcher.protocol import outcome
from dispatcher.protocol.message import Message
from tests.apps.pod_types import Money

APP = Celery("values", set_as_current=False)


class Pair(NamedTuple):
    left: Any
    right: Any


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    YES = "yes"


@dataclasses.dataclass
class Point:
    x: Any


class Told:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __json__(self) -> Any:
        return self.value


class Tree(dict[Any, Any]):
    """A mapping with arguments of its own."""

    def __init__(self, root: str, *, branches: Any) -> None:
        super().__init__(root=root, branches=branches)


REFUSED = object()


def on_prefork(value: Any) -> Any:
    """What a sender reads of what a worker of Celery stores; REFUSED where it stores a failure instead."""
    try:
        content_type, encoding, text = serialization.dumps({"result": value}, serializer="json")
    except serialization.EncodeError:
        return REFUSED
    return serialization.loads(text, content_type, encoding, accept=["application/json"])["result"]


def from_a_pod(value: Any) -> Any:
    """The same of what a pod leaves and the dispatcher stores."""
    ended = bounds.bounded(outcome.Outcome(id="1", retries=0, state="SUCCESS", value=value), max_bytes=1_000_000)
    encoded = outcome.encode(ended)
    told = outcome.decode(encoded.message.decode(), task_id="1", retries=0)
    if isinstance(told, outcome.Frame):
        told = outcome.read_frame("\n".join(encoded.lines).encode(), told)
    return on_prefork(told.value) if told.state == "SUCCESS" else REFUSED


SIGNATURE = APP.signature("t", args=(1,), kwargs={"a": decimal.Decimal("1.5")})
VALUES = [
    collections.defaultdict(list, a=[1]),
    collections.Counter("abracadabra"),
    collections.OrderedDict(b=1, a=2),
    collections.ChainMap({"a": 1}),
    collections.deque([1]),
    Tree("r", branches=[Tree("s", branches=())]),
    SIGNATURE,
    chain(SIGNATURE, SIGNATURE),
    group(SIGNATURE, SIGNATURE),
    Pair(1, Pair((2,), None)),
    Colour.RED,
    Level.LOW,
    Word.YES,
    {Level.LOW: 1, Word.YES: 2},
    Point(1),
    [Point(1)],
    Told({"a": Told(b"\xff")}),
    Money(5),
    {1, 2},
    frozenset({1}),
    b"text",
    b"\xff\x00",
    bytearray(b"x"),
    dt.datetime(2030, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
    dt.datetime(2030, 1, 2),  # noqa: DTZ001 - authors have such, too
    dt.date(2030, 1, 2),
    dt.time(1, 2, tzinfo=dt.UTC),
    dt.timedelta(seconds=1),
    decimal.Decimal("1.10"),
    decimal.Decimal("NaN"),
    uuid.UUID(int=7),
    math.nan,
    math.inf,
    -0.0,
    2**80,
    10**5000,
    1j,
    {1: "a", None: "b", False: "c", 2.5: "d"},
    {1: "a", "1": "b"},
    {(1, 2): "a"},
    {b"a": 1},
    "\ud800",
    "\x00",
    {"__type__": "datetime", "__value__": "never"},
    {"__type__": "unheard of", "__value__": 1},
    {"__type__": "uuid", "__value__": {"hex": "no"}},
    {"__type__": "bytes", "__value__": "text"},
    {"v": 2, "id": "another", "frame": {}},
    object(),
    range(3),
    (number for number in ()),
    ValueError("x"),
    None,
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("nest", [lambda value: value, lambda value: {"a": [value, (value,)]}], ids=["bare", "nested"])
def test_each_kind_of_value_comes_back_as_from_prefork(value: Any, nest: Any) -> None:
    """Or is refused by both."""
    if isinstance(value, dict) and value.get("__value__") in (1, "never", {"hex": "no"}):
        pytest.skip("whoever reads it fails, see the next test")
    assert alike(from_a_pod(nest(value)), on_prefork(nest(value)))


@pytest.mark.parametrize("type_and_value", [("datetime", "never"), ("unheard of", 1), ("uuid", {"hex": "no"})])
def test_what_only_looks_like_a_type_is_stored_as_on_prefork(type_and_value: tuple[str, Any]) -> None:
    """Whoever asks for the result fails to read it there, too; a pod neither loses it nor makes it a failure."""
    value = dict(zip(("__type__", "__value__"), type_and_value, strict=True))
    for read in (on_prefork, from_a_pod):
        with pytest.raises(serialization.DecodeError):
            read(value)


def alike(one: Any, other: Any) -> bool:
    """Equal, with not-a-number equal to itself, and of the same types."""
    return repr(one) == repr(other)


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.none() | st.just(dt.UTC))
    | st.dates()
    | st.times()
    | st.decimals()
    | st.uuids()
    | st.sampled_from([Level.LOW, Word.YES, Colour.RED, Point(1), SIGNATURE])
)
KEYS = st.text() | st.integers() | st.none() | st.booleans() | st.floats()


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    mappings = st.dictionaries(KEYS, inner, max_size=3)
    return (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.builds(Pair, inner, inner)
        | mappings
        | mappings.map(lambda items: collections.defaultdict(list, items))
        | mappings.map(collections.OrderedDict)
        | st.builds(lambda branches: Tree("r", branches=branches), inner)
        | st.builds(Told, inner)
        | st.frozensets(st.integers(), max_size=2)
    )


@given(st.recursive(LEAVES, _nested, max_leaves=15))
def test_any_value_comes_back_as_from_prefork(value: Any) -> None:
    """Nested as it may be."""
    assert alike(from_a_pod(value), on_prefork(value))


@given(st.recursive(LEAVES, _nested, max_leaves=10))
def test_any_argument_reaches_the_body_as_in_prefork(value: Any) -> None:
    """A message goes through the pod's annotation once more than through the broker."""
    if (sent := on_prefork(value)) is REFUSED:
        return
    message = Message(name="t", id="1", args=[sent], kwargs={"a": sent}, embed={"chord": SIGNATURE})
    read = Message.decode(message.encode())
    assert alike([read.args, read.kwargs], [[sent], {"a": sent}])
    assert alike(read.embed, {"chord": on_prefork(SIGNATURE)})


@given(st.recursive(LEAVES, _nested, max_leaves=10))
def test_a_retry_and_a_failure_leave_an_outcome_whatever_they_hold(value: Any) -> None:
    """Arguments of exceptions are made plain before; those of a retry cannot be sent, which Celery calls rejected."""
    ended = outcome.Outcome(id="1", retries=0, state="RETRY", retry={"args": (value,)})
    told = outcome.decode(outcome.encode(bounds.bounded(ended, max_bytes=10)).message.decode(), task_id="1", retries=0)
    if isinstance(told, outcome.Outcome):
        assert told.state == ("REJECTED" if on_prefork(value) is REFUSED else "RETRY")
