"""`python -m routing.cli` is `podyard`, for a parent that knows its interpreter but not the PATH."""

from routing.cli import main

main()
