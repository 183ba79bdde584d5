"""Celery's JSON, as messages and outcomes use it: dates, decimals, bytes and an application's own types survive.

The application registers its types when it is imported (`kombu.utils.json.register_type`), and what a reader without it
cannot revive stays the mapping that it is on the wire. Imported by the pod's entry point: light.
"""

from typing import Any

from kombu.utils import json


def dumps(value: Any) -> str:
    """The JSON text of a value, the same that Celery's json serializer makes.

    Raises kombu's EncodeError or TypeError where it has none, and what an object's own `__json__` raises.
    """
    return str(json.dumps(value))


def loads(text: str) -> Any:
    """The value of a JSON text. Raises ValueError or RecursionError where it is none that can be read.

    What claims to be of a type that nobody here can revive stays a mapping: written again, it is the same text, and
    whoever asks for the result meets it as with one that a Celery worker stored.
    """
    return json.loads(text, object_hook=_revived)


def _revived(mapping: dict[str, Any]) -> Any:
    try:
        return json.object_hook(mapping)
    except Exception:  # decoders of the application's own types raise what they like
        return mapping
