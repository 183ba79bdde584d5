"""What follows from each error of a create: a row per case, in the words of the servers."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher import errors
from dispatcher.launching import create_errors

CASES = [
    # K2, K15, K16: the name is taken
    (409, "AlreadyExists", 'pods "add-x" already exists', "adopt", "AlreadyExists"),
    (409, "AlreadyExists", 'object is being deleted: pods "add-x" already exists', "adopt", "AlreadyExists"),
    # K7: the quota of a namespace
    (
        403,
        "Forbidden",
        'pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=10, limited: pods=10',
        "wait",
        "QuotaExceeded",
    ),
    (403, "Forbidden", 'pods "x" is forbidden: status unknown for quota: q, resources: pods', "wait", "QuotaUnknown"),
    (403, "Forbidden", 'pods "x" is forbidden: failed quota: q: must specify limits.cpu', "fail", "Forbidden"),
    (
        409,
        "Conflict",
        'Operation cannot be fulfilled on resourcequotas "q": the object has been modified; please try again',
        "wait",
        "Conflict",
    ),
    # K5: too much
    (429, "TooManyRequests", "Too many requests, please try again later.", "stop", "TooManyRequests"),
    (408, "Request Timeout", "", "wait", "RequestTimeout"),
    # K6: the server itself
    (500, "InternalError", "Internal error occurred: resource quota evaluation timed out", "wait", "ApiServerError"),
    (500, "InternalError", "etcdserver: leader changed", "wait", "ApiServerError"),
    (500, "ServerTimeout", "The POST operation against Pod could not be completed", "wait", "ApiServerError"),
    (502, "Bad Gateway", "<html>", "wait", "ApiServerError"),
    (503, "ServiceUnavailable", "apiserver is shutting down", "wait", "ApiServerError"),
    (504, "Timeout", "request did not complete within the allotted timeout", "wait", "ApiServerError"),
    (501, "Not Implemented", "", "fail", "Not Implemented"),
    (403, "Forbidden", 'pods "x" is forbidden: not yet ready to handle request', "wait", "ApiServerError"),
    # K8: permissions and rules of the cluster
    (403, "Forbidden", 'pods is forbidden: User "u" cannot create resource "pods"', "wait", "NotPermitted"),
    (403, "Forbidden", 'secrets "s" is forbidden: User "u" cannot patch resource "secrets"', "wait", "NotPermitted"),
    (403, "Forbidden", 'pods "x" is forbidden: violates PodSecurity "restricted:latest"', "fail", "Forbidden"),
    (403, "Forbidden", 'pods "x" is forbidden: maximum cpu usage per Container is 1', "fail", "Forbidden"),
    (
        403,
        "Forbidden",
        'pods "x" is forbidden: error looking up service account n/typo: serviceaccount "typo" not found',
        "fail",
        "Forbidden",
    ),
    (
        403,
        "Forbidden",
        'pods "x" is forbidden: error looking up service account n/default: serviceaccount "default" not found',
        "wait",
        "ServiceAccountPending",
    ),
    # K9, K10: the namespace
    (404, "NotFound", 'namespaces "n" not found', "fail", "NamespaceNotFound"),
    (404, "NotFound", "the server could not find the requested resource", "fail", "NotFound"),
    (
        403,
        "Forbidden",
        'pods "x" is forbidden: unable to create new content in namespace n because it is being terminated',
        "fail",
        "NamespaceTerminating",
    ),
    (
        409,
        "Conflict",
        "unable to create new content in namespace n because it is being terminated",
        "fail",
        "NamespaceTerminating",
    ),
    # K11: the manifest
    (400, "BadRequest", "Pod in version v1 cannot be handled as a Pod", "fail", "BadRequest"),
    (422, "Invalid", "spec.containers[0].image: Required value", "fail", "Invalid"),
    (413, "RequestEntityTooLarge", "limit is 3145728", "fail", "RequestTooLarge"),
    (415, "UnsupportedMediaType", "", "fail", "UnsupportedMediaType"),
    # K12, K13: webhooks
    (403, "Forbidden", 'admission webhook "p.example.com" denied the request: no latest', "fail", "WebhookDenied"),
    (400, "BadRequest", 'admission webhook "p.example.com" denied the request: no latest', "fail", "WebhookDenied"),
    (429, "", 'admission webhook "p.example.com" denied the request: not so fast', "wait", "WebhookDenied"),
    (500, "", 'admission webhook "p.example.com" denied the request: no database', "wait", "ApiServerError"),
    (
        500,
        "InternalError",
        'failed calling webhook "p.example.com": failed to call webhook: context deadline exceeded',
        "wait",
        "WebhookUnavailable",
    ),
    (403, "Forbidden", 'failed calling webhook "p.example.com": connection refused', "wait", "WebhookUnavailable"),
    (400, "BadRequest", 'failed calling webhook "p.example.com": EOF', "wait", "WebhookUnavailable"),
    # K17: tokens rotate
    (401, "Unauthorized", "Unauthorized", "stop", "Unauthorized"),
]
PAGE = Path(__file__).parents[3] / "docs" / "failure-modes.md"


@pytest.mark.parametrize(("status", "kind", "message", "action", "reason"), CASES)
def test_each_error_of_a_create_has_one_reaction(
    status: int, kind: str, message: str, action: str, reason: str
) -> None:
    """Back-pressure waits, what cannot heal fails, and a name that is taken is looked at."""
    found = create_errors.react(errors.ApiError(status, kind, message))
    assert found == create_errors.Reaction(action, reason)  # type: ignore[arg-type]


def test_every_row_of_the_table_decides_a_case() -> None:
    """A row that decides none is one that nobody needs, or one that another row hides."""
    decided = {
        next(row for row in create_errors.TABLE if row.fits(errors.ApiError(status, kind, message)))
        for status, kind, message, *_ in CASES
    }
    assert decided == set(create_errors.TABLE)


def test_no_answer_means_ask_again() -> None:
    """The create may have succeeded: the same name makes asking again safe."""
    assert create_errors.react(errors.ApiUnavailable("time-out")) == create_errors.Reaction(
        "wait", "ApiServerUnavailable"
    )


@given(st.integers(400, 599), st.text(), st.text())
def test_whatever_the_server_says_there_is_a_reason(status: int, kind: str, message: str) -> None:
    """Any status, any words: one of the four actions, and a word for people."""
    found = create_errors.react(errors.ApiError(status, kind, message))
    assert found.action in ("adopt", "wait", "stop", "fail")
    assert found.reason


def test_the_page_shows_the_table() -> None:
    """Row by row, in the order in which it is asked."""
    rows = re.findall(r"^\| ([0-9, –]+) \| (.*?) \| `(\w+)` \| (.*?) \|$", PAGE.read_text(), re.MULTILINE)
    assert rows == [
        (_statuses(rule.statuses), _words(rule), rule.action, f"`{rule.reason}`" if rule.reason else "the server's own")
        for rule in create_errors.TABLE
    ]


def _statuses(statuses: range | tuple[int, ...]) -> str:
    return f"{statuses[0]} – {statuses[-1]}" if isinstance(statuses, range) else ", ".join(map(str, statuses))


def _words(rule: create_errors.CreateErrorRule) -> str:
    return (
        ", ".join([f"reason `{rule.kind}`"] * bool(rule.kind) + [f"«{rule.words.strip()}»"] * bool(rule.words)) or "any"
    )
