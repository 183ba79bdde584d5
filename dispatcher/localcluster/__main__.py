"""`python -m dispatcher.localcluster --home DIR`: a local cluster until SIGINT or SIGTERM."""

import argparse
import logging
import sys
from pathlib import Path

from dispatcher.localcluster import server
from dispatcher.localcluster.objects import store


def main() -> int:
    """Parses the command line and runs; 0, or 1 with one line that says what to do."""
    words = argparse.ArgumentParser(prog="python -m dispatcher.localcluster", description=server.__doc__)
    words.add_argument("--home", type=Path, required=True, help="folder for the kubeconfig and the pods' files")
    words.add_argument("--port", type=int, default=0, help="0: the last one if it is free, else any")
    words.add_argument("--node", default="local", help="name of the one node")
    words.add_argument("--max-pods", type=int, default=None, help="pods that run at once")
    kind = words.add_mutually_exclusive_group()
    kind.add_argument(
        "--instant", dest="runtime", action="store_const", const="instant", help="pods end at once, without a process"
    )
    kind.add_argument(
        "--hold", dest="runtime", action="store_const", const="hold", help="pods stay Running, without a process"
    )
    words.add_argument("--python", type=Path, help="the interpreter that pods find as `python`; else this one")
    words.add_argument("--lasts", type=float, default=0.0, metavar="S", help="instant pods run for so many seconds")
    words.add_argument("--message", default="", help="termination message of instant pods")
    words.add_argument("--history", type=int, default=store.HISTORY_CHANGES, help="changes kept for watches")
    words.add_argument("--bookmark-seconds", type=float, default=10.0)
    words.add_argument("--gone-as-status", action="store_true", help="a watch too old is HTTP 410, not an ERROR event")
    words.add_argument("--faults", action="store_true", help="faults may be asked for (docs/testing.md)")
    words.add_argument("--faults-file", type=Path, help="faults to begin with, and to follow; turns faults on")
    words.add_argument("--until-eof", action="store_true", help="end with the program at the other end of the input")
    given = words.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        server.run(
            home=given.home,
            port=given.port,
            node=given.node,
            ready=_say,
            runtime=given.runtime or "processes",
            python=given.python or Path(sys.executable),
            lasts_s=given.lasts,
            message=given.message,
            max_pods=given.max_pods,
            history_changes=given.history,
            bookmark_s=given.bookmark_seconds,
            gone_as_status=given.gone_as_status,
            faults=given.faults,
            faults_file=given.faults_file,
            until_eof=given.until_eof,
        )
    except server.ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _say(line: str) -> None:
    # Flushed: whoever started us waits for this line on a pipe.
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
