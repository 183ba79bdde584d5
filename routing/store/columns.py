"""Column types that keep what they are given: any text, plain JSON.

Only `routing.store` imports this module. Pure: it turns values into values that both databases take.
"""

import json
import math
from typing import Any

from sqlalchemy import Dialect, Text, TypeDecorator

from dispatcher.attempts import status_store


class PlainText(TypeDecorator[str]):
    """Any Python text: what PostgreSQL refuses (NUL, lone surrogates) is kept as a visible escape."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else status_store.plain_text(value)


def dumps(value: Any) -> str:
    """Compact JSON in ASCII. NaN and infinities, which JSON does not have, become the words that Python prints."""
    try:
        return _encode(value)
    except ValueError:
        return _encode(_finite(value))


# ASCII: a lone surrogate stays an escape, which UTF-8 could not encode and PostgreSQL would refuse as text.
_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
