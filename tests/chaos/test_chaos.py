"""The chaos ring: a short storm over a whole installation, another seed each time. `make chaos` makes long ones."""

import os
import random
from functools import partial

import pytest

from tests.chaos import storm

DURATION_S = 20.0


@pytest.mark.timeout(400)
def test_whatever_is_killed_nothing_is_lost_and_nothing_runs_twice() -> None:
    """Kills, pauses, cuts and API faults; then an audit of the record, the trace of bodies, and the API server.

    The seed is in the output: `make chaos SEED=… DURATION=20` makes the same faults again.
    """
    say = partial(print, flush=True)  # shown where the test fails
    seed = int(os.environ.get("PODYARD_CHAOS_SEED") or random.randrange(2**31))
    plan = storm.Plan(seed=seed, duration_s=DURATION_S, every_s=1.5, database="sqlite" if seed % 2 else "postgres")

    report = storm.run(plan, say=say)

    for line in report.lines():
        say(line)
    assert report.is_good, f"seed {seed}, logs in {report.folder}\n" + "\n".join(report.lines())
    assert report.faults, "a run without a fault proves nothing"
    assert report.figures["bodies begun"] > 20, "nor one without work"
    assert report.figures["samples of limits"] > 5, "nor one whose limits nobody looked at"
