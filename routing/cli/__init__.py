"""The command line. `main` is the console script `podyard`; each command group is a module, loaded when it is used."""

import sys

__all__ = ["main"]


def main() -> None:
    """Runs the command that the arguments name, then exits: 0, or 1 with one line that says what to do."""
    try:
        from routing.cli import program
    except KeyboardInterrupt:
        sys.exit(130)
    program.run()
