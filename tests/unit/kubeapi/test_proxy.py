"""Which proxy stands before the API server, by Go's rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.kubeapi import proxy

PROXY = "http://proxy.example:3128"


def of(server: str = "https://api.example:6443", *, configured: str | None = None, **environ: str) -> str | None:
    return proxy.of(server, configured=configured, environ=environ)


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
def test_the_environment_orders_a_proxy(name: str) -> None:
    assert of(**{name: PROXY}) == PROXY


def test_each_scheme_has_its_own() -> None:
    assert of(HTTP_PROXY=PROXY) is None
    assert of("http://api.example", HTTP_PROXY=PROXY) == PROXY


def test_the_kubeconfig_wins_and_knows_no_exception() -> None:
    assert of(configured=PROXY, HTTPS_PROXY="http://other", NO_PROXY="*") == PROXY


def test_a_scheme_may_be_left_out() -> None:
    assert of(HTTPS_PROXY="proxy.example:3128") == PROXY


@pytest.mark.parametrize(
    "entry",
    [
        "*",
        "api.example",
        "example",
        ".example",
        "*.example",
        "API.EXAMPLE",
        "api.example:6443",
        "other, api.example ,more",
    ],
)
def test_names_that_are_reached_directly(entry: str) -> None:
    assert of(HTTPS_PROXY=PROXY, NO_PROXY=entry) is None


@pytest.mark.parametrize("entry", ["", ",", "pi.example", "api.example:443", ".api.example", "10.0.0.0/8", "[", ":"])
def test_names_that_are_not(entry: str) -> None:
    assert of(HTTPS_PROXY=PROXY, NO_PROXY=entry) == PROXY


@pytest.mark.parametrize("entry", ["10.1.2.3", "10.0.0.0/8", "10.1.2.3:6443"])
def test_addresses_and_networks(entry: str) -> None:
    assert of("https://10.1.2.3:6443", HTTPS_PROXY=PROXY, no_proxy=entry) is None
    assert of("https://11.1.2.3:6443", HTTPS_PROXY=PROXY, no_proxy=entry) == PROXY


@pytest.mark.parametrize(
    "server", ["https://localhost:1", "https://127.0.0.1:1", "https://127.1.2.3", "https://[::1]:1"]
)
def test_this_machine_is_reached_directly(server: str) -> None:
    assert of(server, HTTPS_PROXY=PROXY) is None


@pytest.mark.parametrize("url", ["socks5://proxy:1", "http://", "http://proxy:port", "ftp://proxy"])
def test_a_proxy_that_cannot_be_used_is_refused_by_name(url: str) -> None:
    with pytest.raises(ValueError, match="HTTPS_PROXY"):
        of(HTTPS_PROXY=url)
    with pytest.raises(ValueError, match="proxy-url"):
        of(configured=url)


@given(st.text(max_size=30), st.text(max_size=20))
def test_no_list_of_exceptions_breaks_it(bypass: str, host: str) -> None:
    """People write it by hand."""
    assert proxy.is_bypassed(host, 443, bypass=bypass) in (True, False)
