"""The tables of docs/configuration.md, made from those of the settings: `python -m routing.config.docs` writes them.

A test compares the page with what is made here, so that neither can be changed alone.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dispatcher import constraints
from dispatcher.options import QueueProfile
from dispatcher.settings import layers
from routing.config import sections, settings

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"

_KEYS = "| key | what it does | allowed | default |\n|---|---|---|---|\n"
_RULES = "| key of a rule | what it does | allowed | default |\n|---|---|---|---|\n"
_DEFAULTS = {
    "home": "`./.podyard`",
    "database.url": "`sqlite:///<home>/podyard.db`",
    "dags.folder": "`./dags`",
    "logs.folder": "`<home>/logs`",
    "health.folder": "`<home>/health`",
    "kubernetes.app": f"`{settings.POD_APP}`",
    "policy.capabilities": 'those of the Pod Security Standard "baseline"',
    "queues.NAME.namespace": "`kubernetes.namespace`",
}
"""What stands for a default that depends on others, or is long."""
_SIDE = (
    '| `queues.NAME.side` | `"kubernetes"`: each task gets a pod of its own. `"celery"`: Celery workers run it |'
    ' "kubernetes" or "celery" | must be written, except for `kubernetes` |\n'
)


def page(text: str) -> str:
    """The page with its two tables made again."""
    text = _replaced(text, _KEYS, "".join(_settings_rows()))
    return _replaced(text, _RULES, _SIDE + "".join(_rule_rows()))


def _settings_rows() -> Iterator[str]:
    for section, table in sections.TABLES.items():
        for name, key in constraints.keys_of(table).items():
            yield _row(layers.spell((section, name) if section else (name,)), key)


def _rule_rows() -> Iterator[str]:
    for name, key in constraints.keys_of(QueueProfile).items():
        yield _row(f"queues.NAME.{name}", key)


def _row(spelled: str, key: constraints.Key) -> str:
    return f"| `{spelled}` | {key.description} | {key.allowed} | {_DEFAULTS.get(spelled) or _default(key.default)} |\n"


def _default(value: Any) -> str:
    if value is None:
        return "not set"
    if value in ((), {}):
        return "none"
    if isinstance(value, bool):
        return f"`{value}`".lower()
    return f"`{', '.join(value)}`" if isinstance(value, tuple) else f"`{value}`"


def _replaced(text: str, head: str, rows: str) -> str:
    before, found, after = text.partition(head)
    if not found:
        raise LookupError(f"the page has no table that begins with {head.splitlines()[0]}")
    return f"{before}{head}{rows}\n{after.partition(chr(10) * 2)[2] if not after.startswith(chr(10)) else after[1:]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
