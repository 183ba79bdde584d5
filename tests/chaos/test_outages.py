"""The chaos ring: parts away for seconds under load, alone and in a pair. `make outages` has the whole matrix."""

from functools import partial

import pytest

from tests.chaos import outages

REFUSES_S, HANGS_S = 6.0, 9.5
"""Long enough for health to name what is away."""
CASES = [
    outages.Case(parts=("broker", "database"), how="refuses", duration_s=REFUSES_S),
    outages.Case(parts=("database", "api"), how="hangs", duration_s=HANGS_S),
    outages.Case(parts=("results",), how="refuses", duration_s=REFUSES_S),
    outages.Case(parts=("api",), how="refuses", duration_s=REFUSES_S),
]


@pytest.mark.timeout(300)
def test_what_is_away_stops_only_what_needs_it_and_loses_nothing() -> None:
    """Both halves and a plain Celery application under load; afterwards all is drained and the audit finds nothing.

    Proves that the half that does not need the part went on, that nobody spins or grows, that every process lived on
    and named what it lacked, and that what was accepted ended exactly once.
    """
    say = partial(print, flush=True)  # shown where the test fails

    report = outages.run(CASES, say=say)

    for line in report.lines():
        say(line)
    assert report.is_good, f"logs in {report.folder}\n" + "\n".join(report.lines())
    assert report.figures["bodies begun"] > 100, "a run without work proves nothing"
