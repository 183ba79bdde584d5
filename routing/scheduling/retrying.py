"""Whether a task is tried again, and who is charged for it.

The author's budget is `retries`; faults of the infrastructure have a budget of their own with back-off; an attempt that
gets more memory than the last one costs neither, and is bounded by its cap. Pure.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

BACKOFF_MAX_S = 300.0


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a task may use. Delays in seconds."""

    retries: int
    retry_delay_s: float
    infra_retries: int
    infra_retry_delay_s: float


@dataclass(frozen=True, kw_only=True)
class Used:
    """Attempts so far, the one that just failed included; `infra_failures` of them were not the author's fault, and
    after `growths` of them the next one got more memory."""

    attempts: int
    infra_failures: int
    growths: int = 0


@dataclass(frozen=True)
class Retry:
    """Try again at `at`; a fault of the infrastructure is charged there, a growth of memory nowhere."""

    at: datetime
    is_infrastructure: bool
    is_growth: bool = False


@dataclass(frozen=True)
class GiveUp:
    """The task has failed, for this reason."""

    reason: str


def decide(*, cause: str | None, used: Used, budget: Budget, now: datetime, may_grow: bool = False) -> Retry | GiveUp:
    """What to do after an attempt failed by `cause`. `used` counts before this failure is charged to anybody.

    `may_grow`: it was killed for its memory, and another one may get more.
    """
    # Before any budget: with `retries=0` a task that needs twice the memory would never get it (ADR 7).
    if may_grow:
        return Retry(now, is_infrastructure=False, is_growth=True)
    if cause == "infrastructure":
        if used.infra_failures < budget.infra_retries:
            delay_s = min(budget.infra_retry_delay_s * 2**used.infra_failures, BACKOFF_MAX_S)
            return Retry(now + timedelta(seconds=delay_s), is_infrastructure=True)
        return GiveUp(f"the infrastructure failed {used.infra_failures + 1} times")
    # Counted from what the record has, and not kept as a number of its own that could disagree.
    charged = used.attempts - used.infra_failures - used.growths
    if charged <= budget.retries:
        return Retry(now + timedelta(seconds=budget.retry_delay_s), is_infrastructure=False)
    return GiveUp(f"failed {charged} times" if budget.retries else "failed, and it has no retries")
