"""The proxy on the way to the API server, by the rules of kubectl, which are Go's. Pure.

A kubeconfig's `proxy-url` is always used; else HTTPS_PROXY or HTTP_PROXY is, unless the server is this machine or
stands in NO_PROXY. https://pkg.go.dev/golang.org/x/net/http/httpproxy#Config
"""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

SCHEMES = ("http", "https")


def of(server: str, *, configured: str | None, environ: Mapping[str, str]) -> str | None:
    """The proxy's address for a server's address, None where there is none; ValueError says which setting is wrong."""
    if configured:
        return _usable(configured, "proxy-url")
    address = urlsplit(server)
    variable = f"{address.scheme}_proxy"
    # The upper-case name first, as Go does; curl has it the other way round.
    name = next((name for name in (variable.upper(), variable) if environ.get(name)), None)
    if name is None:
        return None
    bypass = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    port = address.port or (443 if address.scheme == "https" else 80)
    if is_bypassed(address.hostname or "", port, bypass=bypass):
        return None
    return _usable(environ[name], name)


def is_bypassed(host: str, port: int, *, bypass: str) -> bool:
    """Whether a host is reached directly: this machine, and what NO_PROXY (`bypass`) lists."""
    host = host.rstrip(".").lower()
    ip = _ip(host)
    # Also where NO_PROXY is not set: Go has it so, and a local cluster behind a company's proxy would not be found.
    if host == "localhost" or (ip is not None and ip.is_loopback):
        return True
    return any(_fits(entry.strip().lower(), host, ip, port) for entry in bypass.split(",") if entry.strip())


_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


def _fits(entry: str, host: str, ip: _Ip | None, port: int) -> bool:
    """One entry of NO_PROXY: `*`, a network, an address or a name, the last two perhaps with a port."""
    if entry == "*":
        return True
    if "/" in entry:
        try:
            # A name is not looked up for this, as Go does not. Not strict: `10.0.0.5/8` is a network there.
            return ip is not None and ip in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name, wanted_port = _split_port(entry)
    if wanted_port not in (None, str(port)):
        return False
    if (known := _ip(name)) is not None:
        return known == ip
    name = name.removeprefix("*")
    # `example.org` means itself and what is below, `.example.org` and `*.example.org` only what is below.
    suffix = name if name.startswith(".") else f".{name}"
    return bool(name) and ip is None and (host.endswith(suffix) or host == name)


def _split_port(entry: str) -> tuple[str, str | None]:
    if entry.startswith("["):
        name, _, port = entry[1:].partition("]")
        return name, port.removeprefix(":") or None
    # With more colons it is an IPv6 address without a port.
    if entry.count(":") == 1:
        name, _, port = entry.partition(":")
        return name, port
    return entry, None


def _ip(text: str) -> _Ip | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _usable(url: str, setting: str) -> str:
    """The message holds no address: it may have a password in it."""
    given = url.strip()
    # As Go: `HTTPS_PROXY=proxy:3128` is a proxy that is spoken to in plain HTTP.
    full = given if "://" in given else f"http://{given}"
    try:
        address = urlsplit(full)
        is_complete = bool(address.hostname) and (address.port is None or address.port > 0)
    except ValueError:
        is_complete = False
    if not is_complete:
        raise ValueError(f"{setting} is not the address of a proxy, such as http://proxy.example:3128")
    if address.scheme not in SCHEMES:
        raise ValueError(f"{setting} names a proxy of the kind {address.scheme}://; only {' and '.join(SCHEMES)} work")
    return full
