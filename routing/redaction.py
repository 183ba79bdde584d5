"""What of a setting people may see: passwords never, everything else as it is. Pure."""

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "•••"

_PASSWORD = re.compile(r"(://[^:/@?#]*:).+@", re.DOTALL)
_QUERY_PASSWORD = re.compile(r"([?&][^=&]*(?:password|passwd|secret)[^=&]*=)[^&]*", re.IGNORECASE)
_SECRET_NAME = re.compile(r"pass|secret|token|key|credential", re.IGNORECASE)


def hide_url(url: str) -> str:
    """The URL without its passwords; of what is no URL, nothing before its last `@`."""
    if "://" not in url and "@" in url:
        return f"{HIDDEN}@{url.rpartition('@')[2]}"
    return _QUERY_PASSWORD.sub(rf"\1{HIDDEN}", _PASSWORD.sub(rf"\1{HIDDEN}@", url))


def hide_basic_auth(text: str) -> str:
    """`user:password` without the password; of what is no pair, nothing."""
    user, separator, _ = text.partition(":")
    return f"{user}:{HIDDEN}" if separator else HIDDEN


def hide_environment(env: Mapping[str, Any]) -> dict[str, Any]:
    """Environment variables; the values of those whose name says "secret" are hidden."""
    return {name: HIDDEN if _SECRET_NAME.search(str(name)) else value for name, value in env.items()}
