"""The table of what the HTTP library raises is complete."""

from collections.abc import Iterator

import aiohttp
import pytest

from dispatcher.kubeapi import http_errors

SENT = {
    "ClientConnectionError",
    "ClientConnectionResetError",
    "ClientOSError",
    "ClientPayloadError",
    "ClientResponseError",
    "ContentTypeError",
    "RedirectClientError",
    "ServerConnectionError",
    "ServerDisconnectedError",
    "ServerTimeoutError",
    "SocketTimeoutError",
    "TooManyRedirects",
    "UploadAbortedError",
    "WSServerHandshakeError",
}
"""After these the call may have been carried out."""
NOT_SENT = {
    "ClientConnectorCertificateError",
    "ClientConnectorDNSError",
    "ClientConnectorError",
    "ClientConnectorSSLError",
    "ClientHttpProxyError",
    "ClientProxyConnectionError",
    "ClientSSLError",
    "ConnectionTimeoutError",
    "InvalidURL",
    "InvalidUrlClientError",
    "InvalidUrlRedirectClientError",
    "NonHttpUrlClientError",
    "NonHttpUrlRedirectClientError",
    "ServerFingerprintMismatch",
    "UnixClientConnectorError",
}


def kinds(root: type[Exception]) -> Iterator[type[Exception]]:
    for kind in root.__subclasses__():
        if kind.__module__.startswith("aiohttp."):
            yield kind
            yield from kinds(kind)


def test_every_error_of_the_library_is_sent_or_not_sent() -> None:
    """A release that adds one makes this fail: decide whether the call may have been carried out, and name it here."""
    known = {kind.__name__: kind for kind in kinds(aiohttp.ClientError)}
    assert set(known) <= SENT | NOT_SENT
    assert {name for name, kind in known.items() if issubclass(kind, http_errors.NOT_SENT)} == NOT_SENT & set(known)


@pytest.mark.parametrize(
    ("error", "was_sent", "words"),
    [
        (TimeoutError(), True, "no answer in time"),
        (ConnectionResetError("reset"), True, "reset"),
        (aiohttp.ServerDisconnectedError(), True, "Server disconnected"),
        (aiohttp.ConnectionTimeoutError("slow"), False, "no answer in time"),
        (aiohttp.InvalidURL("x"), False, "x"),
    ],
)
def test_what_is_known_of_the_call(error: Exception, was_sent: bool, words: str) -> None:
    mapped = http_errors.unavailable(error, what="POST /pods")
    assert (mapped.was_sent, str(mapped)) == (was_sent, f"POST /pods: {words}")
