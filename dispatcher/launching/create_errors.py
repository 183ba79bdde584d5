"""Create errors: what follows from an error of a create. One table, pure; docs/failure-modes.md shows it.

The first row that fits decides. What heals by itself is waited for (quota, conflicts, a webhook that is down, 5xx, no
answer at all: the create may have succeeded, so it is repeated under the same name), what concerns every request of
ours stops all creates for a while (401: tokens rotate; 429), what cannot heal fails its own attempt with the server's
words. Sources: the API conventions (https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md#http-status-codes)
and the words of the admission plugins, which give quota, webhooks and namespaces the same statuses as refusals.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dispatcher import errors, retry

Action = Literal["adopt", "wait", "stop", "fail"]
"""`adopt`: look at the pod that is there. `wait`: park the attempt, its namespace pauses. `stop`: park it, all creates
pause. `fail`: the attempt fails."""


@dataclass(frozen=True)
class Reaction:
    """What follows, and the reason that people see."""

    action: Action
    reason: str


@dataclass(frozen=True, kw_only=True)
class CreateErrorRule:
    """A row: it fits an answer with one of the statuses, the server's reason and words (small letters) where given."""

    statuses: range | tuple[int, ...]
    kind: str = ""
    words: str = ""
    action: Action
    reason: str
    """Empty: the server's own."""

    def fits(self, error: errors.ApiError) -> bool:
        """Whether this row is about that error."""
        is_kind = not self.kind or error.reason == self.kind
        return error.status in self.statuses and is_kind and self.words in error.message.lower()


_ANY = range(400, 600)

TABLE: Sequence[CreateErrorRule] = (
    # By the reason: 409 alone is also a conflict of writes, such as of two creates that one ResourceQuota counts.
    CreateErrorRule(statuses=(409,), kind="AlreadyExists", action="adopt", reason="AlreadyExists"),
    # Whatever the status, which differs by how the call failed (K13).
    CreateErrorRule(statuses=_ANY, words="failed calling webhook", action="wait", reason="WebhookUnavailable"),
    # A webhook chooses the status of its refusal. With 429 it asks to come again, so that is waited for.
    CreateErrorRule(statuses=range(400, 429), words="denied the request", action="fail", reason="WebhookDenied"),
    CreateErrorRule(statuses=(429,), words="denied the request", action="wait", reason="WebhookDenied"),
    # Quota refuses by 403, as a missing permission does: only the words distinguish what heals by itself.
    CreateErrorRule(statuses=(403,), words="exceeded quota", action="wait", reason="QuotaExceeded"),
    # A ResourceQuota that was just made: its controller has not counted yet.
    CreateErrorRule(statuses=(403,), words="status unknown for quota", action="wait", reason="QuotaUnknown"),
    # Words of the admission plugin NamespaceLifecycle: what is being deleted takes no pod any more (K10).
    CreateErrorRule(statuses=_ANY, words="it is being terminated", action="fail", reason="NamespaceTerminating"),
    # The controller makes `default` a moment after its namespace. Any other account is the author's mistake.
    CreateErrorRule(
        statuses=(403,), words='serviceaccount "default" not found', action="wait", reason="ServiceAccountPending"
    ),
    CreateErrorRule(
        statuses=(403,), words="not yet ready to handle request", action="wait", reason="ApiServerError"
    ),  # an admission plugin whose caches are cold, after a restart
    # The words of the authorizers (RBAC): our own right and not the author's fault;
    # an API server that has just started may not have read the role yet (K8).
    CreateErrorRule(statuses=(403,), words="cannot create resource", action="wait", reason="NotPermitted"),
    # The same of the Secret with its message, which is a PATCH where a try before has made it.
    CreateErrorRule(statuses=(403,), words="cannot patch resource", action="wait", reason="NotPermitted"),
    CreateErrorRule(statuses=(404,), words="namespaces ", action="fail", reason="NamespaceNotFound"),
    # Of the credentials, so of every request: tokens rotate, and the file is read again after a 401 (K17).
    CreateErrorRule(statuses=(401,), action="stop", reason="Unauthorized"),
    # The API server protects itself from all that we send, whatever the namespace.
    CreateErrorRule(statuses=(429,), action="stop", reason="TooManyRequests"),
    CreateErrorRule(statuses=(408,), action="wait", reason="RequestTimeout"),
    CreateErrorRule(statuses=(409,), action="wait", reason="Conflict"),
    CreateErrorRule(statuses=(413,), action="fail", reason="RequestTooLarge"),
    CreateErrorRule(statuses=(415,), action="fail", reason="UnsupportedMediaType"),
    # The two of the 5xx that no waiting heals.
    CreateErrorRule(statuses=(501, 505), action="fail", reason=""),
    CreateErrorRule(statuses=range(500, 600), action="wait", reason="ApiServerError"),
    CreateErrorRule(statuses=_ANY, action="fail", reason=""),
)
"""Asked from the top; the last row takes the rest."""

NO_ANSWER = Reaction("wait", "ApiServerUnavailable")


def react(error: errors.ApiError | errors.ApiUnavailable) -> Reaction:
    """What a create's error means."""
    if isinstance(error, errors.ApiUnavailable):
        return NO_ANSWER
    rule = next((rule for rule in TABLE if rule.fits(error)), TABLE[-1])
    return Reaction(rule.action, rule.reason or error.reason or "Refused")


def may_have_worked(error: errors.ApiError | errors.ApiUnavailable) -> bool:
    """Whether a create with this error may have made the pod all the same."""
    if isinstance(error, errors.ApiUnavailable):
        return error.was_sent
    # The object may be in etcd though the answer is an error: a time-out, or a proxy that has lost the server's answer.
    return error.status == 408 or error.status >= 500


def backoff_s(failures: int, error: errors.ApiError | errors.ApiUnavailable, *, jitter: float) -> float:
    """How long a create that is tried again by itself waits; no less than the server asks for (`Retry-After`)."""
    return max(getattr(error, "retry_after_s", None) or 0.0, retry.backoff_s(failures, jitter=jitter))
