"""The table of reasons as the page docs/reasons.md: `python -m dispatcher.status.reasons_page > docs/reasons.md`."""

import sys
from collections.abc import Iterator, Mapping

from dispatcher.status import diagnosis, reasons
from dispatcher.status.reasons import Cause, Place

_HEAD = """\
# Why it waits or failed

Generated from `dispatcher/status/reasons.py` by `python -m dispatcher.status.reasons_page`. `podyard tasks explain`,
the record, the exception of a result (`details["explanation"]`, `details["what_to_do"]`) and Flower say the same. Of
several lines for one reason the first holds that fits exit code and message; of `Unschedulable` all that fit.

Whose: an **author** failure is charged to `retries`, one of the **infrastructure** to `scheduler.infra_retries`; a wait
costs nobody anything.

"""


def page() -> str:
    """`docs/reasons.md`: the table for people."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield from _HEAD.splitlines()
    yield "| reason | whose | what it means | what to do |"
    yield "|---|---|---|---|"
    for known in reasons.TABLE:
        names = ", ".join(f"`{reason}`" for reason in known.reasons)
        code = "" if known.exit_code is None else f" {known.exit_code}"
        place = _PLACES.get(known.places, "")
        whose = _WHOSE[known.cause]
        means, to_do = (diagnosis.worded(text, {}) for text in (known.means, known.to_do))
        yield f"| {names}{code}{place} | {whose} | {means} | {to_do} |"


_PLACES: Mapping[tuple[Place, ...], str] = {
    ("container",): " of a container",
    ("container", "pod"): " in a pod",
    ("pod", "worker"): " of a task's body",
    ("worker",): " on a worker",
}
_WHOSE: Mapping[Cause | None, str] = {
    "application": "author",
    "infrastructure": "infrastructure",
    "unknown": "unknown",
    None: "a wait",
}


if __name__ == "__main__":
    sys.stdout.write(page())
