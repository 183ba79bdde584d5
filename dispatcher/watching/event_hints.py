"""Event hints: what the cluster's events say of pods that do not start though they have a node.

A pod's status says ContainerCreating whether its volumes are missing, its image is pulled or its network is late; only
events say more. They are asked for where a pod has waited a while, a few pods at a time, later each time: a pod that
starts as pods do costs no call. On the loop's thread.
"""

import asyncio
import logging

from dispatcher import errors
from dispatcher.attempts import wait_rules
from dispatcher.attempts.attempt import Attempt
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.states import State
from dispatcher.background import Background
from dispatcher.kubeapi import client
from dispatcher.status import pod_events

logger = logging.getLogger(__name__)

FIRST_S = 10.0
"""So long a pod may do without a look at its events; less where a rule ends its wait sooner."""
LAST_S = 120.0
AT_ONCE = 4
_PROGRESS = frozenset({"Created", "Pulled", "Pulling", "Started", "SuccessfulAttachVolume"})


class EventHints:
    """Looks for them."""

    def __init__(self, kube: client.KubeClient, *, attempts: Attempts, background: Background) -> None:
        self._client = kube
        self._attempts = attempts
        self._background = background
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._due: dict[Attempt, tuple[float, float]] = {}
        """When to look next (monotonic), and how long after that again."""

    def look(self, attempt: Attempt, *, now_mono_s: float) -> None:
        """Reads the events of an attempt's pod, if it is time to."""
        wait, uid = attempt.wait, attempt.pod.uid
        if uid is None or wait is None:
            return
        first_s = _first_look_s(attempt)
        # Counted from when the wait began: an adopted pod that has waited for minutes is looked at at once.
        due_mono_s, next_s = self._due.setdefault(attempt, (wait.since_mono_s + first_s, first_s))
        if now_mono_s >= due_mono_s:
            # Before the answer: twice a second this is asked for, and one question at a time is enough.
            self._due[attempt] = (now_mono_s + next_s, min(2 * next_s, LAST_S))
            self._background.spawn(self._ask(attempt, uid))

    def forget_started(self) -> None:
        """Forgets all attempts that wait for their start no longer."""
        # Attempts are the keys: what has started or ended would be kept from the garbage collector.
        self._due = {attempt: due for attempt, due in self._due.items() if attempt.state is State.PENDING}

    async def _ask(self, attempt: Attempt, uid: str) -> None:
        async with self._slots:
            try:
                events = pod_events.read(await self._client.list_events(attempt.namespace, uid=uid))
            except (errors.ApiError, errors.ApiUnavailable) as error:
                logger.debug("events were not read pod=%s: %s", attempt.pod.name, error)
                return
        # The answer may come after the start: then its wait is over.
        if attempt.state is State.PENDING and attempt.wait is not None:
            self._attempts.hinted(attempt, _telling(events))


def _telling(events: list[pod_events.Event]) -> pod_events.Event | None:
    """The newest event that says what goes on: a warning, or a step on the way that came after it."""
    telling = [event for event in events if event.is_warning or event.reason in _PROGRESS]
    if not telling:
        return None
    # The newest and not the worst: a mount that failed and then worked is no reason any more.
    newest = max(event.at for event in telling)
    last = [event for event in telling if event.at == newest]  # times are whole seconds: of these a warning says more
    return next((event for event in reversed(last) if event.is_warning), last[-1])


def _first_look_s(attempt: Attempt) -> float:
    """Half of the shortest deadline that an event could set, within bounds."""
    ruled = [rule.after_s for kind in ("volume", "image", "start") if (rule := _rule(attempt, kind)).after_s > 0]
    # Half: a hint that comes after its deadline could not say in the failure what was waited for.
    return min([FIRST_S, *(after_s / 2 for after_s in ruled)])


def _rule(attempt: Attempt, kind: str) -> wait_rules.Rule:
    return wait_rules.rule_of(kind, profile=attempt.profile, options=attempt.options)
