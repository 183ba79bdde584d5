"""Which pod templates a queue may name: those that ship with Podyard, or a file. Settings and the router ask here."""

import difflib
from functools import cache
from importlib import resources
from pathlib import Path


@cache
def names() -> tuple[str, ...]:
    """The names of the templates inside the wheel, sorted."""
    folder = resources.files("podyard_templates")
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def problem(template: str) -> str | None:
    """What is wrong with a `template` value of a queue, or None: it names a shipped template or a file that exists."""
    if template in names() or Path(template).is_file():
        return None
    if Path(template).exists():
        return "this path is not a file"
    near = difflib.get_close_matches(template, names(), n=1)
    hint = f'did you mean "{near[0]}"? ' if near else ""
    return f"{hint}neither a shipped template ({', '.join(names())}) nor an existing file"
