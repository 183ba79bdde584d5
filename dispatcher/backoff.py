"""Back-off: how long to wait after so many failures in a row. Pure; for loops that call the API server."""

FIRST_S = 0.5
LAST_S = 30.0


def backoff_s(failures: int, *, jitter: float) -> float:
    """Seconds to wait after so many failures in a row: doubling, capped, shortened by up to half (`jitter` 0 to 1)."""
    full = min(LAST_S, FIRST_S * 2 ** min(failures - 1, 10))
    return float(full * (1 - jitter / 2))
