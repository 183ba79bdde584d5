"""Back-off: how long to wait after so many failures in a row. Pure; the defaults are for calls to the API server."""

FIRST_S = 0.5
LAST_S = 30.0


def backoff_s(failures: int, *, jitter: float, first_s: float = FIRST_S, last_s: float = LAST_S) -> float:
    """Seconds to wait after so many failures in a row: doubling, capped, shortened by up to half (`jitter` 0 to 1)."""
    full = min(last_s, first_s * 2 ** min(failures - 1, 10))
    return float(full * (1 - jitter / 2))
