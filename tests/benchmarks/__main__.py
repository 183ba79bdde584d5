"""`make bench`: every benchmark of this folder, one after the other, each in a process of its own.

`make bench ONLY=pods` runs those whose name contains the word. Figures are ratios measured side by side in one run;
what they mean, and figures of earlier days, stand in docs/benchmarks.md.
"""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path


def main() -> int:
    """Runs the benchmarks. Returns the number of those that failed."""
    only = os.environ.get("ONLY", "")
    names = sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py") if only in path.stem)
    if not names:
        print(f"no benchmark has {only!r} in its name")
        return 1
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    failed = 0
    for name in names:
        started = time.monotonic()
        print(f"\n== {name.removeprefix('bench_')}", flush=True)
        done = subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}"], check=False)
        failed += done.returncode != 0
        print(f"   ({time.monotonic() - started:.0f} s{'' if done.returncode == 0 else ', FAILED'})", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
