"""What can be wrong with embedded parts, as one error whose message says what, where and what to do."""

from routing.errors import RoutingError


class EmbeddedError(RoutingError):
    """An embedded part cannot be found, started or kept running; the command line prints the message as one line."""
