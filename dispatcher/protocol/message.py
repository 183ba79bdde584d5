"""A task message: what Celery hands to the pool, what travels in the pod, what a restarted dispatcher reads back.

The pod carries its whole message in the annotation `podyard.dev/message`, so that the pod can run the
task and any later dispatcher can finish its story. Pure, but for the encoding, which is Celery's own JSON (dates,
UUIDs, decimals and bytes survive). Imported by the pod's entry point: it stays light.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self, TypedDict, cast

from dispatcher.protocol import typed_json

# Celery's Request writes these beside the headers into one mapping; `request` makes them anew.
_ADDED_BY_REQUEST = frozenset(
    {"args", "kwargs", "properties", "reply_to", "correlation_id", "hostname", "delivery_info", "is_eager"}
)
HEADER = "podyard"
"""The custom message header that carries the sender's options for the pod (name, labels, pod_override,
pod_template_file), and lessons of earlier attempts."""

AGAIN_HEADER = "podyard_again"
"""Says that this message was sent before, or may have been, under the same id."""

END_HEADER = "podyard_pod_end"
"""Says that the pod of this attempt is known to have ended, and how: no other one is made, its end is told instead."""


PUT_BACK_HEADER = "podyard_put_back"
"""Says that this message was put back on purpose though an outcome was stored, and of what time: that one is no reason
not to run again."""


class PodEnd(TypedDict, total=False):
    """What the table of pods knows of a pod that has ended, where its outcome has got lost."""

    phase: str
    reason: str
    message: str
    cause: str
    exit_code: int
    node: str


LONGEST_LIMIT_S = 2_000_000_000
"""A pod's `activeDeadlineSeconds` ends at 2**31 - 1, 68 years."""


def kept_limit_s(seconds: float | None) -> float | None:
    """A time limit that can be kept; None for none, and for one that is never reached (`sys.maxsize`, infinity)."""
    return seconds if seconds and seconds < LONGEST_LIMIT_S else None


class LaunchKey(NamedTuple):
    """What tells the launches of one task id apart; later launches are greater.

    Celery sends several messages under one id: each retry counts `retries` up, and each `self.replace()`, whether by a
    task, a chain, a group or a chord, counts `replaced_task_nesting` up in every message that it leads to.
    """

    attempt_id: str
    replaced: int
    retries: int

    @property
    def place(self) -> tuple[int, int]:
        """The order of the launches of one task id."""
        return (self.replaced, self.retries)


@dataclass(frozen=True, kw_only=True)
class Message:
    """One delivery of one task. `headers` are those of the message, without what Celery's Request adds to them."""

    name: str
    id: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    embed: Mapping[str, Any] = field(default_factory=dict)
    """callbacks, errbacks, chain and chord, as in Celery's message protocol 2."""
    headers: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)
    delivery_info: Mapping[str, Any] = field(default_factory=dict)
    consumed_from: str = ""
    """The queue that it was consumed from, where its routing key is another word."""

    @property
    def retries(self) -> int:
        """How often Celery retried this task before; part of the pod's name."""
        # Senders of other languages leave the header out or null.
        return int(self.headers.get("retries") or 0)

    @property
    def shown_name(self) -> str:
        """The name that people read: what its sender gave as `shadow`, as in Celery's own events and logs."""
        return str(self.headers.get("shadow") or self.name)

    @property
    def replaced(self) -> int:
        """How often a task of this id has replaced itself before; part of the pod's name where it did."""
        return int(self.headers.get("replaced_task_nesting") or 0)

    @property
    def key(self) -> LaunchKey:
        """What makes two deliveries deliveries of one launch."""
        return LaunchKey(self.id, self.replaced, self.retries)

    @property
    def queue(self) -> str:
        """The queue that it came from; where nothing else is said, the routing key of a direct exchange."""
        # Kombu binds a queue without an exchange of its own by its name; with one the routing key is any word.
        return self.consumed_from or str(self.delivery_info.get("routing_key") or "")

    @property
    def is_repeat(self) -> bool:
        """Whether it says of itself that it may have been delivered or sent before."""
        # `redelivered` is the broker's word, and a Redis broker's only after a visibility time-out.
        return bool(self.delivery_info.get("redelivered") or self.headers.get(AGAIN_HEADER))

    @property
    def known_outcome(self) -> str | None:
        """When the outcome was stored behind which this message was put back on purpose; None for any other message."""
        said = self.headers.get(PUT_BACK_HEADER)
        return said if isinstance(said, str) else None

    @property
    def pod_end(self) -> PodEnd | None:
        """How its pod ended, where its sender knows that it has; None for any other message."""
        said = self.headers.get(END_HEADER)
        return cast("PodEnd", said) if isinstance(said, Mapping) else None

    @property
    def requested(self) -> Mapping[str, Any]:
        """What the sender asked of the pod, in the header `podyard`; empty where nothing was asked."""
        requested = self.headers.get(HEADER)
        return requested if isinstance(requested, Mapping) else {}

    @property
    def request(self) -> dict[str, Any]:
        """The request dictionary for Celery's tracer: headers, embed and what Celery's Request adds."""
        return {
            **self.headers,
            # Celery 5.6 takes the next step out of the chain that it is given; a replay that comes again needs it, too.
            **{key: list(value) if isinstance(value, list) else value for key, value in self.embed.items()},
            "args": self.args,
            "kwargs": self.kwargs,
            "properties": self.properties,
            "reply_to": self.properties.get("reply_to"),
            "correlation_id": self.properties.get("correlation_id"),
            "delivery_info": self.delivery_info,
            "is_eager": False,
        }

    @classmethod
    def from_request(
        cls, name: str, task_id: str, request: Mapping[str, Any], body: Sequence[Any], *, consumed_from: str = ""
    ) -> Self:
        """The message behind a Celery request whose body is decoded: (args, kwargs, embed)."""
        args, kwargs, embed = body
        again = {"redelivered": True} if request.get(PUT_BACK_HEADER) else {}  # as of any message that is put back
        return cls(
            name=name,
            id=task_id,
            args=args,
            kwargs=kwargs,
            embed=embed or {},
            headers={key: value for key, value in request.items() if key not in _ADDED_BY_REQUEST},
            properties=request.get("properties") or {},
            delivery_info={**(request.get("delivery_info") or {}), **again},
            consumed_from=consumed_from,
        )

    def encode(self) -> str:
        """The JSON text for the annotation: all that a retry needs, the sender's options for its pod too.

        Raises kombu's EncodeError (a TypeError for JSON) where an argument has no JSON form.
        """
        # Celery sends some twenty headers, most of them empty, and one string of an environment ends at 128 KiB.
        headers = {key: value for key, value in self.headers.items() if value not in (None, {}, [])}
        return typed_json.dumps(
            {
                "v": 1,
                "name": self.name,
                "id": self.id,
                "args": self.args,
                "kwargs": self.kwargs,
                "embed": {key: value for key, value in self.embed.items() if value},
                "headers": headers,
                "properties": {key: value for key, value in self.properties.items() if value is not None},
                "delivery_info": self.delivery_info,
                **({"consumed_from": self.consumed_from} if self.consumed_from else {}),
            }
        )

    @classmethod
    def decode(cls, text: str) -> Self:
        """The message in an annotation. Raises ValueError that says what is wrong with it.

        Arguments of the application's own types are revived only once it is imported.
        """
        try:
            fields = typed_json.loads(text)
            version = fields.pop("v")
            message = cls(**fields)
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise ValueError(f"not a task message of Podyard: {error}") from error
        if version != 1:
            raise ValueError(f"a task message of version {version!r}; this version of Podyard reads 1")
        return message
