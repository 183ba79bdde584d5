"""What went wrong with a call -> our two errors: one table for what the HTTP library raises, one for statuses.

`ApiError`: the API server itself answered, with an error. `ApiUnavailable`: nothing is known of the call's effect, or
(`was_sent` false) it was not even sent. A status that speaks of an object (404, 409 …) counts only in the API server's
own words, a `Status` object: a proxy's "404 page not found" says nothing about our pod. Pure but for its types.
"""

from collections.abc import Mapping
from http import HTTPStatus

import aiohttp

from dispatcher import errors
from dispatcher.kubeapi import answers

CAUGHT = (aiohttp.ClientError, TimeoutError, OSError)
"""What a call of the HTTP library may raise. All else is a defect of ours."""

NOT_SENT = (
    aiohttp.ClientConnectorError,  # no connection: refused, unknown host, TLS, also of a proxy
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,  # the proxy did not connect us
    aiohttp.ServerFingerprintMismatch,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
)
"""Those after which nothing was done. After all others of `CAUGHT` the call may have been carried out."""

OF_OBJECTS = frozenset({400, 403, 404, 409, 410, 422})
"""Statuses from which conclusions are drawn about an object or our permissions; see above."""


def unavailable(error: BaseException, *, what: str) -> errors.ApiUnavailable:
    """There was no answer. `what` names the call."""
    return errors.ApiUnavailable(f"{what}: {_words(error)}", was_sent=not isinstance(error, NOT_SENT))


def unusable(error: answers.Unusable, *, what: str) -> errors.ApiUnavailable:
    """There was an answer of success that is of no use."""
    return errors.ApiUnavailable(f"{what}: {error}")


def refused(
    status: int, body: bytes, headers: Mapping[str, str], *, what: str
) -> errors.ApiError | errors.ApiUnavailable:
    """There was an answer whose status is not of success."""
    # Also a page of HTML with status 200, such as a proxy's login.
    if not 400 <= status < 600:
        where = f", to {headers['Location']:.200}" if 300 <= status < 400 and "Location" in headers else ""
        return errors.ApiUnavailable(
            f"{what}: answered with {status}{where}: that is no API server, or not its address"
        )
    try:
        reason, message = answers.failure(body)
    # A proxy's 404 taken for the server's would mean: this pod is gone, and its attempt lost.
    except answers.Unusable:
        if status in OF_OBJECTS:
            return errors.ApiUnavailable(
                f"{what}: answered with {status}, but not in the words of an API server; is a proxy in between?"
            )
        reason, message = None, " ".join(body[:300].decode(errors="replace").split())
    name = reason or _REASONS.get(status) or _phrase(status)
    # The header is enough: an API server writes `details.retryAfterSeconds` into it, and priority and fairness (429)
    # sends nothing but the header and a line of text.
    after_s = _retry_after_s(headers.get("Retry-After"))
    return errors.ApiError(status, name, message or name, retry_after_s=after_s)


_REASONS: Mapping[int, str] = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}
"""Kubernetes' reasons, where the body says none."""


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase.replace(" ", "")
    except ValueError:
        return "Unknown"


def _retry_after_s(header: str | None) -> float | None:
    """Seconds, as API servers send them; a date is taken for none."""
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _words(error: BaseException) -> str:
    # First: the words of aiohttp's time-outs name its own internals, those of asyncio's are empty.
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
