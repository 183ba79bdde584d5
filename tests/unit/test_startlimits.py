"""Which pods are late, and whose limit said so."""

import pytest

from dispatcher import startlimits
from dispatcher.options import QueueProfile
from dispatcher.podoptions import PodOptions
from dispatcher.startlimits import Late

NONE = PodOptions()
PROFILE = QueueProfile(schedule_timeout_s=100, startup_timeout_s=50)


def late(
    *,
    now_s: float,
    scheduled_s: float | None = None,
    wanted: PodOptions = NONE,
    profile: QueueProfile = PROFILE,
) -> Late | None:
    return startlimits.late(created_s=0, scheduled_s=scheduled_s, now_s=now_s, wanted=wanted, profile=profile)


def test_the_queue_limits_the_search_for_a_node() -> None:
    assert late(now_s=99.9) is None
    assert late(now_s=100) == Late(what="scheduled", limit_s=100)


def test_the_clock_begins_anew_when_a_node_is_found() -> None:
    assert late(scheduled_s=90, now_s=139) is None
    assert late(scheduled_s=90, now_s=140) == Late(what="started", limit_s=50)


def test_the_sender_wins_over_the_queue() -> None:
    wanted = PodOptions(schedule_timeout_s=1, startup_timeout_s=2)
    assert late(now_s=1, wanted=wanted) == Late(what="scheduled", limit_s=1)
    assert late(scheduled_s=1, now_s=3, wanted=wanted) == Late(what="started", limit_s=2)


@pytest.mark.parametrize("scheduled_s", [None, 0.0])
def test_a_limit_of_zero_is_none(scheduled_s: float | None) -> None:
    none = QueueProfile(schedule_timeout_s=0, startup_timeout_s=0)
    assert late(scheduled_s=scheduled_s, now_s=1e9, profile=none) is None


def test_the_words_name_the_limit() -> None:
    assert Late(what="started", limit_s=2.5).words == "was not started within 2.5 s (startup_timeout)"
