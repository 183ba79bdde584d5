"""`make chaos DURATION=900 SEED=7`: a long run, and its report. Ends with 1 where the audit found anything."""

import argparse
import random
import sys

from tests.chaos import storm


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--duration", type=float, default=900.0, help="seconds of faults")
    parser.add_argument("--seed", type=int, default=None, help="default: a random one, which is printed")
    parser.add_argument("--every", type=float, default=3.0, help="mean seconds between faults")
    parser.add_argument("--database", choices=("postgres", "sqlite"), default="postgres")
    parser.add_argument("--only", default="", help="kinds of faults, separated by commas")
    words = parser.parse_args()
    plan = storm.Plan(
        seed=random.randrange(2**31) if words.seed is None else words.seed,
        duration_s=words.duration,
        every_s=words.every,
        database=words.database,
        only=tuple(kind.strip() for kind in words.only.split(",") if kind.strip()),
    )
    report = storm.run(plan, say=lambda line: print(line, flush=True))  # noqa: T201 - this is its output
    print("\n".join(report.lines()))  # noqa: T201
    if not report.is_good:
        print(f"logs and data: {report.folder}")  # noqa: T201
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
