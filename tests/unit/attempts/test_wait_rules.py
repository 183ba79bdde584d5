"""What is waited for, how long, and which setting says so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.attempts import wait_rules
from dispatcher.attempts.wait_rules import Rule, Wait
from dispatcher.launching import create_errors
from dispatcher.manifests.container_pod_options import PodOptions
from dispatcher.options import QueueProfile

PLAIN = QueueProfile(schedule_timeout_s=100, startup_timeout_s=50)
POD_KINDS = ("image", "config", "volume", "start")


def rule(kind: str, *, options: PodOptions | None = None, **rules: str) -> Rule:
    profile = QueueProfile(schedule_timeout_s=100, startup_timeout_s=50, waits=rules)
    return wait_rules.rule_of(kind, profile=profile, options=options)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("wait", Rule()),
        ("wait after 30s", Rule(action="wait", after_s=30)),
        ("retry after 1.5h", Rule(action="retry", after_s=5400)),
        (" fail  after 10 m ", Rule(action="fail", after_s=600)),
        ("fail after 2d", Rule(action="fail", after_s=172_800)),
    ],
)
def test_a_rule_is_read_as_people_write_it(text: str, expected: Rule) -> None:
    assert wait_rules.read(text) == expected


@pytest.mark.parametrize(
    "text", ["", "fail", "fail after 0s", "fail after 10", "fail after -1m", "ignore after 1m", 600, None]
)
def test_what_is_no_rule_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(ValueError, match="fail after 10m"):
        wait_rules.read(text)


@given(st.sampled_from(wait_rules.ACTIONS), st.integers(1, 10**7))
def test_a_rule_is_spelled_as_it_is_read(action: wait_rules.Action, after_s: int) -> None:
    """What `queues explain` prints can be written into the settings."""
    one = Rule(action=action, after_s=float(after_s))
    assert wait_rules.read(str(one)) == one


def test_without_a_rule_the_time_limits_of_the_queue_hold_as_ever() -> None:
    """A node is looked for again with another pod, an image that is missing is the author's."""
    assert rule("unschedulable") == Rule(action="retry", after_s=100)
    assert {kind: rule(kind) for kind in POD_KINDS} == {
        "image": Rule(action="fail", after_s=50),
        "config": Rule(action="fail", after_s=50),
        "volume": Rule(action="retry", after_s=50),
        "start": Rule(action="retry", after_s=50),
    }


@pytest.mark.parametrize("kind", ["unschedulable", *POD_KINDS])
def test_a_limit_of_zero_is_none(kind: str) -> None:
    none = QueueProfile(schedule_timeout_s=0, startup_timeout_s=0)
    assert wait_rules.rule_of(kind, profile=none) == Rule()


def test_every_other_wait_goes_on_and_is_told_after_an_hour() -> None:
    others = set(wait_rules.KINDS) - {"unschedulable", "permission", *POD_KINDS}
    assert {rule(kind) for kind in others} == {Rule(action="wait", after_s=3600)}


def test_a_refusal_of_the_dispatcher_is_held_for_minutes_and_is_the_infrastructures() -> None:
    """An API server that restarted knows its roles a moment later; an account without its role never gets further."""
    assert rule("permission") == Rule(action="retry", after_s=300)


def test_a_rule_of_the_queue_wins_over_its_time_limits() -> None:
    assert rule("image", image="retry after 5s") == Rule(action="retry", after_s=5)
    assert rule("volume", image="retry after 5s") == Rule(action="retry", after_s=50)


def test_a_time_limit_of_the_task_wins_over_the_queue() -> None:
    """It ends the wait even where the queue would go on: somebody asked for an end."""
    options = PodOptions(schedule_timeout_s=1, startup_timeout_s=2)
    assert rule("unschedulable", options=options, unschedulable="fail after 9s") == Rule(action="fail", after_s=1)
    assert rule("image", options=options, image="wait") == Rule(action="fail", after_s=2)
    assert rule("slot", options=options, slot="wait after 9s") == Rule(action="wait", after_s=9)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ("fail after 1m", "must be a table of waits"),
        ({"immage": "wait"}, "'immage' is nothing that is waited for; known are sending, consumer"),
        ({"image": "fail"}, 'image must be "wait", or'),
        ({"results": "fail after 1m"}, 'results can only be "wait"'),
    ],
)
def test_what_is_wrong_with_the_waits_of_a_queue_is_said(rules: object, words: str) -> None:
    assert words in (wait_rules.problem(rules) or "")


def test_a_queue_without_pods_has_the_waits_of_messages_only() -> None:
    assert wait_rules.problem({"consumer": "fail after 1m", "queued": "wait"}, is_of_messages=True) is None
    assert 'with side = "celery"' in (wait_rules.problem({"image": "wait"}, is_of_messages=True) or "")


@pytest.mark.parametrize(
    ("reason", "is_pod", "is_scheduled", "kind"),
    [
        (None, False, False, "slot"),
        ("QuotaExceeded", False, False, "quota"),
        ("TooManyRequests", False, False, "api_server"),
        ("PodLeaving", False, False, "old_pod"),
        ("ResultBackendUnavailable", False, False, "results"),
        (None, True, False, "unschedulable"),
        ("SchedulingGated", True, False, "unschedulable"),
        ("ImagePullBackOff", True, True, "image"),
        ("CreateContainerConfigError", True, True, "config"),
        ("FailedMount", True, True, "volume"),
        ("ContainerCreating", True, True, "start"),
        ("PodInitializing", True, True, "start"),
    ],
)
def test_words_of_the_record_mean_a_kind(reason: str | None, is_pod: bool, is_scheduled: bool, kind: str) -> None:
    assert wait_rules.kind_of(reason=reason, is_pod=is_pod, is_scheduled=is_scheduled) == kind


def test_every_error_that_is_waited_out_has_its_kind() -> None:
    """What the table of reactions waits for is of the quota, the API server or a permission, never "a slot"."""
    reasons = {rule.reason for rule in create_errors.TABLE if rule.action in ("wait", "stop")}
    kinds = {reason: wait_rules.kind_of(reason=reason, is_pod=False, is_scheduled=False) for reason in reasons}
    assert {reason for reason, kind in kinds.items() if kind not in ("quota", "api_server", "permission")} == set()


def test_a_wait_is_over_at_its_deadline() -> None:
    wait = Wait(
        kind="image", reason="r", detail=None, since_mono_s=10, rule=Rule(action="fail", after_s=5), said_by="s"
    )
    assert (wait.deadline_mono_s, wait.is_expired(14.9), wait.is_expired(15)) == (15, False, True)
    endless = Wait(kind="image", reason="r", detail=None, since_mono_s=10, rule=Rule(), said_by="s")
    assert (endless.deadline_mono_s, endless.is_expired(1e9)) == (None, False)


@pytest.mark.parametrize("kind", wait_rules.KINDS)
def test_an_end_names_kind_time_setting_and_way_out(kind: str) -> None:
    wait = Wait(
        kind=kind,
        reason="Why",
        detail="in detail",
        since_mono_s=0,
        rule=Rule(action="fail", after_s=600),
        said_by=wait_rules.said_by(kind, profile=PLAIN, queue="q"),
    )
    words = wait_rules.too_long(wait, subject="the pod p")
    assert {"10 m", "Why: in detail", wait.said_by, wait_rules.KINDS[kind].remedy} <= {
        part for part in ("10 m", "Why: in detail", wait.said_by, wait_rules.KINDS[kind].remedy) if part in words
    }
    assert wait_rules.details(wait) == {"reason": "Why", "cause": "application", "waited_for": kind}


def test_the_setting_that_bounds_a_wait_is_named() -> None:
    options = PodOptions(startup_timeout_s=2)
    assert wait_rules.said_by("image", profile=PLAIN, queue="q") == "startup_timeout_s of the queue q"
    assert (
        wait_rules.said_by("image", profile=PLAIN, options=options, queue="q") == "startup_timeout_seconds of the task"
    )
    assert wait_rules.said_by("quota", profile=PLAIN, options=options, queue="q") == "waits.quota of the queue q"
    ruled = QueueProfile(waits={"unschedulable": "wait"})
    assert wait_rules.said_by("unschedulable", profile=ruled, queue="q") == "waits.unschedulable of the queue q"
