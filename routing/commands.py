"""Commands as they are printed for people: a shell takes each word as it was meant, whatever stands in it. Pure."""

import shlex
from collections.abc import Mapping
from pathlib import Path


def shown(*words: str | Path, environment: Mapping[str, str | Path] | None = None, program: str = "podyard") -> str:
    """A command between backquotes, such as `podyard dags trigger 'my dag'`; `plain` without them."""
    return f"`{plain(*words, environment=environment, program=program)}`"


def plain(*words: str | Path, environment: Mapping[str, str | Path] | None = None, program: str = "podyard") -> str:
    """The command alone, with variables of the environment before it."""
    variables = [f"{name}={shlex.quote(str(value))}" for name, value in (environment or {}).items()]
    return " ".join((*variables, shlex.join(map(str, (program, *words)))))
