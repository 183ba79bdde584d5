"""`make chaos DURATION=900 SEED=7`, `make outages DURATION=60`: a long run, and its report.

Ends with 1 where anything was found.
"""

import argparse
import random
import sys

from tests.chaos import outages, storm


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--outages", action="store_true", help="the matrix of outages instead of a storm")
    parser.add_argument("--duration", type=float, default=900.0, help="seconds of faults, or of each outage")
    parser.add_argument("--seed", type=int, default=None, help="default: a random one, which is printed")
    parser.add_argument("--every", type=float, default=3.0, help="mean seconds between faults")
    parser.add_argument("--database", choices=("postgres", "sqlite"), default="postgres")
    parser.add_argument("--only", default="", help="kinds of faults (or outages), separated by commas")
    words = parser.parse_args()
    return _outages(words) if words.outages else _storm(words)


def _storm(words: argparse.Namespace) -> int:
    plan = storm.Plan(
        seed=random.randrange(2**31) if words.seed is None else words.seed,
        duration_s=words.duration,
        every_s=words.every,
        database=words.database,
        only=tuple(kind.strip() for kind in words.only.split(",") if kind.strip()),
    )
    report = storm.run(plan, say=lambda line: print(line, flush=True))
    return _told(report)


def _outages(words: argparse.Namespace) -> int:
    wanted = {name.strip() for name in words.only.split(",") if name.strip()}
    cases = [case for case in outages.matrix(words.duration) if not wanted or str(case) in wanted]
    drain_s = words.duration + outages.DRAIN_BOUND_S
    report = outages.run(cases, say=lambda line: print(line, flush=True), drain_s=drain_s)
    return _told(report)


def _told(report: storm.Report | outages.Report) -> int:
    print("\n".join(report.lines()))
    if not report.is_good:
        print(f"logs and data: {report.folder}")
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
