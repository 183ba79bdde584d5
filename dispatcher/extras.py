"""The extras of the distribution `podyard`: which of a part's packages are not installed, and the command that does it.

The core is what a pod and a client need; every other part asks here before it starts (the command line, the pool), so
that an installation that lacks something ends with one line and not with the traceback of an import. What belongs to an
extra is read from the installed distribution: `pyproject.toml` says it once.
"""

from collections.abc import Collection
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dispatcher import errors

DISTRIBUTION = "podyard"


def require(extra: str, *, for_what: str, except_for: Collection[str] = ()) -> None:
    """Raises MissingExtra where a package of `extra` is not installed, but for those that something else may replace
    (`except_for`). `for_what` begins its sentence."""
    missing = [name for name in missing_packages(extra) if name not in except_for]
    if missing:
        named = ", ".join(missing)
        lacking = "a package that is" if len(missing) == 1 else "packages that are"
        raise errors.MissingExtra(f"{for_what} needs {lacking} not installed ({named}): {command(extra)}")


def command(extra: str) -> str:
    """What to type to install it."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def missing_packages(extra: str) -> tuple[str, ...]:
    """The distributions of `extra`, with those of the extras that it names, that are not installed; sorted."""
    return tuple(sorted(name for name in _packages(extra) if not _is_installed(name)))


def _packages(extra: str) -> set[str]:
    try:
        lines = metadata.requires(DISTRIBUTION) or ()
    except metadata.PackageNotFoundError:
        return set()  # run from a folder of sources: nothing says what belongs to it
    found: set[str] = set()
    for line in lines:
        requirement = Requirement(line)
        # No marker: it belongs to the core, which is there.
        if requirement.marker is None or not requirement.marker.evaluate({"extra": extra}):
            continue
        # `all` names other extras as `podyard[scheduler,flower]`.
        if canonicalize_name(requirement.name) == DISTRIBUTION:
            found = found.union(*(_packages(inner) for inner in requirement.extras))
        else:
            found.add(requirement.name)
    return found


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
