"""Types and fields of Kubernetes' objects, derived from the models of the installed client, as our tables are."""

import re
import textwrap
from collections.abc import Mapping, Sequence

from kubernetes import client

_PORTS = frozenset({"maxSurge", "maxUnavailable", "minAvailable", "port", "targetPort"})
"""Fields that take a number or a text."""


def derived(roots: Sequence[str]) -> dict[str, dict[str, str]]:
    """The table, from the models of the installed client: all types that the roots lead to."""
    found: dict[str, dict[str, str]] = {}
    waiting = [f"V1{root}" for root in roots]
    while waiting:
        model = waiting.pop()
        name = _short(model)
        if name in found:
            continue
        cls = getattr(client, model)
        fields = {cls.attribute_map[field]: (field, kind) for field, kind in cls.openapi_types.items()}
        found[name] = {spelling: _kind(name, spelling, kind) for spelling, (_, kind) in fields.items()}
        for spelling, (_, kind) in fields.items():
            below = re.fullmatch(r"(?:List\[)?((?:Core|Rbac)?V1\w+)\]?", kind)
            if below and found[name][spelling] != "any":
                waiting.append(below[1])
    return found


def _short(model: str) -> str:
    return re.sub(r"^(Core|Rbac)?V1", "", model)


def _kind(name: str, field: str, kind: str) -> str:
    """What the client says, and what it does not: quantities and ports may be numbers, a status is unchecked."""
    if field == "status" and kind.endswith("Status"):
        return "any"
    if field in {"limits", "requests", "overhead"}:
        return "{quantity}"
    if field in {"sizeLimit", "divisor"}:
        return "quantity"
    if kind == "object":
        return "port" if field in _PORTS else "any"
    plain = {"Dict[str, str]": "{str}", "datetime": "time", "str": "str", "int": "int", "bool": "bool"}
    of_list = re.fullmatch(r"List\[(.*)\]", kind)
    return f"[{_kind(name, '', of_list[1])}]" if of_list else plain.get(kind, _short(kind))


def table(types: Mapping[str, Mapping[str, str]], *, roots: Sequence[str]) -> str:
    """As it is written down: the roots first."""
    entries = (
        f"{name} " + " ".join(f"{field}:{kind}" for field, kind in sorted(types[name].items()))
        for name in [*roots, *sorted(set(types) - set(roots))]
    )
    wrap = {"width": 118, "subsequent_indent": "    ", "break_long_words": False, "break_on_hyphens": False}
    return "\n".join(textwrap.fill(entry, **wrap) for entry in entries)
