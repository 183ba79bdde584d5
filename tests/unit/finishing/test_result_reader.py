"""The result reader: whatever a pod did, its attempt gets an outcome, or a failure that says why."""

import asyncio
import hashlib
from base64 import b64encode
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher import errors
from dispatcher.attempts.attempt import Attempt
from dispatcher.attempts.registry import Attempts
from dispatcher.finishing import result_reader
from dispatcher.manifests import builder, result_sidecar, workload
from dispatcher.manifests.result_sidecar import SidecarReport
from dispatcher.protocol import outcome
from tests import builders, fake_api, fast_time

MAX_BYTES = 1000
AWAY = errors.ApiUnavailable("the API server is away")


class World:
    """One ended pod at a fake API server."""

    def __init__(self, made: Attempt | None = None, status: Any = None) -> None:
        self.api = fake_api.FakeApi()
        self.one = made or builders.launched(Attempts())
        self.status = status or builders.ended()
        self.api.add_pod(builders.pod_of(self.one))
        self.pod = self.api.pods["default", self.one.pod.name]
        self.pod["metadata"]["uid"] = self.one.pod.uid

    async def read(self, report: SidecarReport | None = None) -> tuple[Any, tuple[str, ...]]:
        """What is read of it."""
        seen = builders.seen(self.one, self.status).seen
        return await result_reader.read(self.api, self.one, seen, report=report, max_bytes=MAX_BYTES)  # type: ignore[arg-type]

    def log(self, text: bytes, container: str = "base") -> None:
        """What its container has printed."""
        self.api.logs["default", self.one.pod.name, container] = text


def run(call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """On a clock that jumps."""
    return fast_time.run(call())


def read(status: Any = None, *, made: Attempt | None = None, report: SidecarReport | None = None) -> Any:
    """What is read of a pod that ended so."""

    async def call() -> Any:
        return (await World(made, status).read(report))[0]

    return run(call)


def container(**kwargs: Any) -> Attempt:
    """An attempt whose pod is of any image."""
    message = builders.message(name=builder.ANY_IMAGE_TASK, kwargs=kwargs)
    return builders.launched(Attempts(), message=message)


def large(one: Attempt, value: object = "x" * 9000) -> tuple[str, bytes]:
    """The termination message and the log of a result that does not fit into the message."""
    encoded = outcome.encode(outcome.Outcome(id=one.id, retries=0, state="SUCCESS", value=value))
    return encoded.message.decode(), b"hello\n" + "\n".join(encoded.lines).encode() + b"\n"


# --- a task's pod


def test_the_outcome_in_the_termination_message_is_the_attempts() -> None:
    """Whatever the exit code: the pod says how the body ended."""
    one = builders.launched(Attempts())
    made = outcome.Outcome(
        id=one.id, retries=0, state="FAILURE", failure=outcome.Failure(type="E", module="m", args=[])
    )
    message = outcome.encode(made).message.decode()
    assert read(builders.ended(0, message=message), made=one) == made
    assert read(builders.ended(1, message=message), made=one) == made


@pytest.mark.parametrize("late_lines", [1, 1000, 40_000])
def test_a_large_outcome_is_read_from_the_log(late_lines: int) -> None:
    """Behind what the body printed, and before what its threads went on to print."""

    async def call() -> Any:
        world = World()
        message, log = large(world.one)
        world.status = builders.ended(message=message)
        world.log(log + b"goodbye\n" * late_lines)
        return (await world.read())[0].value

    assert run(call) == "x" * 9000


NOT_PERMITTED = errors.ApiError(403, "Forbidden", 'cannot get resource "pods/log"')
FOR_NOW = [AWAY, NOT_PERMITTED, errors.ApiError(401, "Unauthorized", ""), errors.ApiError(500, "E", "node is away")]
"""Answers that may be others soon: of a server that restarts, of a node that is cut off."""


@pytest.mark.parametrize("error", FOR_NOW)
@pytest.mark.parametrize("state", ["SUCCESS", "RETRY", "FAILURE"])
def test_an_outcome_in_a_log_waits_until_the_log_can_be_read(error: Exception, state: str) -> None:
    """An API server that restarts takes a minute, and its permissions come last; nothing of the task is lost."""

    async def call() -> Any:
        world = World()
        made = outcome.Outcome(id=world.one.id, retries=0, state=state, value="x" * 9000)
        encoded = outcome.encode(made)
        world.status = builders.ended(int(state != "SUCCESS"), message=encoded.message.decode())
        world.log("\n".join(encoded.lines).encode())
        world.api.fail("read_log", error, times=12)
        return (await world.read())[0] == made

    assert run(call)


async def without_a_log(error: Exception) -> tuple[Any, int, float]:
    """What becomes of a success whose log never comes; how often it was asked for, and for how long."""
    world, loop = World(), asyncio.get_running_loop()
    world.status = builders.ended(message=large(world.one)[0])
    world.api.fail("read_log", error, times=500)
    began_s = loop.time()
    return (await world.read())[0], world.api.calls["read_log"], loop.time() - began_s


@pytest.mark.parametrize("error", FOR_NOW)
def test_a_log_that_never_comes_is_a_result_that_is_lost(error: Exception) -> None:
    """After a quarter of an hour; a success whose result is lost is none, and not by its author's fault."""
    result, tries, seconds = run(lambda: without_a_log(error))
    assert (result.details["reason"], result.details["cause"]) == ("ResultLost", "infrastructure")
    assert str(error) in str(result)
    assert tries < 100
    assert result_reader.LOG_S < seconds < result_reader.LOG_S + 60


def test_a_log_that_is_gone_is_asked_for_a_few_times() -> None:
    """Its pod was deleted."""
    gone = errors.ApiError(404, "NotFound", "no pod")
    result, tries, seconds = run(lambda: without_a_log(gone))
    assert (result.details["reason"], result.details["cause"]) == ("ResultLost", "infrastructure")
    assert str(gone) in str(result)
    assert tries == result_reader.GONE_TRIES
    assert seconds < 15


NOT_MINE = outcome.encode(outcome.Outcome(id="another", retries=0, state="SUCCESS")).message.decode()


@pytest.mark.parametrize("message", ["", "hello", "{}", NOT_MINE, '{"v": 1, "id": "task", "retries": 0, "frame": 5}'])
def test_a_pod_that_ended_well_and_left_no_outcome_has_failed(message: str) -> None:
    """Nobody knows what its body returned."""
    one = builders.launched(Attempts(), task_id="task")
    result = read(builders.ended(message=message), made=one)
    assert (result.details["reason"], result.details["exit_code"]) == ("NoOutcome", 0)
    assert one.pod.name in str(result)


def test_a_pod_that_failed_without_an_outcome_fails_in_the_words_of_its_status() -> None:
    """With what programs want to know, and what people should do."""
    result = read(builders.ended(137, reason="OOMKilled"))
    assert (result.details["reason"], result.details["exit_code"], result.details["cause"]) == (
        "OOMKilled",
        137,
        "application",
    )
    assert "failed: OOMKilled, exit code 137" in str(result)
    assert result.details["explanation"]
    assert result.details["what_to_do"]


def test_the_last_line_of_a_message_is_in_the_failure_and_the_rest_beside_it() -> None:
    """One line for people, the end of it for those who look closer."""
    result = read(builders.ended(1, message="first\n" + "x" * 9000 + "\nValueError: no\n"))
    assert str(result).endswith("exit code 1, ValueError: no")
    assert len(result.details["message"]) == result_reader.MESSAGE_CHARS
    assert result.details["message"].endswith("ValueError: no")
    assert "message" not in read(builders.ended(1, message="no")).details


def test_a_pod_without_a_reason_or_an_exit_code_fails_all_the_same() -> None:
    """Such as one that was deleted, or evicted before it ran."""
    result = read({"phase": "Failed"})
    assert isinstance(result, errors.PodFailed)
    assert "exit code" not in str(result)


# --- what the cluster said about a failure


async def failed_with_events(*events: tuple[str, str, str], **fault: Exception) -> tuple[Any, tuple[str, ...]]:
    """A pod that failed, and what the API server says of its events."""
    world = World(status=builders.ended(1))
    for reason, message, kind in events:
        world.api.add_event(world.pod, reason=reason, message=message, type=kind)
    for call, error in fault.items():
        world.api.fail(call, error)
    return await world.read()


def test_the_warning_that_belongs_to_a_failure_is_in_it_and_all_events_are_in_its_log() -> None:
    """A probe that failed belongs to an exit code; a volume that was mounted in the end does not."""
    events = (("Scheduled", "to node-1", "Normal"), ("Unhealthy", "probe failed", "Warning"))
    mount = ("FailedMount", "no volume", "Warning")
    result, epilogue = run(lambda: failed_with_events(*events, mount))
    assert str(result).endswith("; the cluster said: Unhealthy: probe failed")
    assert [line.partition(" ")[2] for line in epilogue[2:]] == [
        "Normal Scheduled: to node-1",
        "Warning Unhealthy: probe failed",
        "Warning FailedMount: no volume",
    ]
    assert epilogue[1].startswith("that is: ")


def test_a_warning_that_the_failure_says_already_is_not_said_twice() -> None:
    """Its words are those of the status."""

    async def call() -> Any:
        world = World(status={"phase": "Failed", "reason": "Evicted", "message": "low on memory"})
        world.api.add_event(world.pod, reason="Evicted", message="low on memory")
        return (await world.read())[0]

    assert str(run(call)).count("low on memory") == 1


@pytest.mark.parametrize("error", [AWAY, errors.ApiError(403, "Forbidden", "cannot list events")])
def test_without_events_a_failure_is_told_all_the_same(error: Exception) -> None:
    """They are for people."""
    result, epilogue = run(lambda: failed_with_events(list_events=error))
    assert (result.details["reason"], epilogue) == ("Error", ())
    assert result.details["explanation"]


def test_events_that_do_not_come_hold_a_failure_up_for_a_moment_only() -> None:
    """Then it is report without them."""

    async def call() -> float:
        world, loop = World(status=builders.ended(1)), asyncio.get_running_loop()
        world.api.hold("list_events")
        began_s = loop.time()
        await world.read()
        return loop.time() - began_s

    assert run(call) == pytest.approx(result_reader.EVENTS_S, abs=0.1)


def test_a_success_asks_for_no_events() -> None:
    """Most pods succeed."""

    async def call() -> int:
        world = World()
        world.status = builders.ended(
            message=outcome.encode(outcome.Outcome(id=world.one.id, retries=0, state="SUCCESS")).message.decode()
        )
        await world.read()
        return world.api.calls["list_events"] + world.api.calls["read_log"]

    assert run(call) == 0


def test_a_reading_that_is_cancelled_ends() -> None:
    """At whichever call it waits."""

    async def call(name: str) -> None:
        world = World(status=builders.ended(1))
        if name == "read_log":
            world.status = builders.ended(message=large(world.one)[0])
        world.api.hold(name)
        reading = asyncio.create_task(world.read())
        await fast_time.until(lambda: world.api.calls[name])
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    for name in ("read_log", "list_events"):
        run(lambda name=name: call(name))  # type: ignore[misc]


# --- a pod of any image


def test_the_exit_code_of_a_pod_of_any_image_decides() -> None:
    """It leaves no outcome, and prints what it likes where one would be."""
    result = read(builders.ended(message="done"), made=container())
    assert (result.state, result.value, result.runtime_s) == ("SUCCESS", None, 1.0)
    assert read(builders.ended(3), made=container()).details["exit_code"] == 3


def test_the_time_it_took_is_that_of_its_container() -> None:
    """As far as the node says it; never less than nothing."""
    untold = builders.ended(startedAt=None)
    backwards = builders.ended(startedAt="2026-01-01T00:00:09Z")
    assert [read(status, made=container()).runtime_s for status in (untold, backwards)] == [0.0, 0.0]


def test_an_exit_code_that_means_skipped_is_no_failure() -> None:
    """And needs no explanation by events."""
    result = read(builders.ended(99), made=container(skip_on_exit_code=[99, 100]))
    assert isinstance(result, errors.PodSkipped)
    assert result.details["exit_code"] == 99
    assert not isinstance(read(builders.ended(98), made=container(skip_on_exit_code=[99])), errors.PodSkipped)


def test_a_pod_that_was_evicted_is_not_skipped_whatever_its_exit_code() -> None:
    """It did not end by itself."""
    status = {**builders.ended(137), "reason": "Evicted"}
    result = read(status, made=container(skip_on_exit_code=[137]))
    assert type(result) is errors.PodFailed
    assert result.details["cause"] == "infrastructure"


@pytest.mark.parametrize(
    ("report", "value"),
    [
        (SidecarReport(kind="nothing"), None),
        (SidecarReport(kind="here", data=b'{"a": [1]}'), {"a": [1]}),
        (SidecarReport(kind="here"), None),
    ],
)
def test_the_result_that_a_sidecar_told_is_the_attempts(report: SidecarReport, value: object) -> None:
    """None where there is no file, or an empty one."""
    assert read(made=container(do_xcom_push=True), report=report).value == value


def test_without_a_result_that_was_asked_for_nobody_waits_for_one() -> None:
    """Nor takes one."""
    assert read(made=container(), report=SidecarReport(kind="here", data=b"7")).value is None


DATA = b'"' + b"y" * 900 + b'"'
IN_LOG = SidecarReport(kind="log", size=len(DATA), sha256=hashlib.sha256(DATA).hexdigest())


def test_a_larger_result_is_read_from_the_sidecars_log() -> None:
    """Again, where it cannot be read now."""

    async def call() -> Any:
        world = World(container(do_xcom_push=True))
        world.log(b64encode(DATA), result_sidecar.NAME)
        world.api.fail("read_log", AWAY, errors.ApiError(500, "E", ""))
        return (await world.read(IN_LOG))[0].value

    assert run(call) == "y" * 900


@pytest.mark.parametrize(
    ("report", "log", "reason", "cause"),
    [
        (None, b"", "ResultLost", "infrastructure"),
        (SidecarReport(kind="lost"), b"", "ResultLost", "infrastructure"),
        (SidecarReport(kind="waiting"), b"", "ResultLost", "infrastructure"),
        (SidecarReport(kind="unreadable"), b"", "InvalidResult", "application"),
        (SidecarReport(kind="large", size=9999), b"", "ResultTooLarge", "application"),
        (SidecarReport(kind="here", data=b"{"), b"", "InvalidResult", "application"),
        (SidecarReport(kind="here", data=b"NaN"), b"", "InvalidResult", "application"),
        (SidecarReport(kind="here", data=b"\xff"), b"", "InvalidResult", "application"),
        (IN_LOG, b64encode(DATA)[:-8], "ResultLost", "infrastructure"),
        (IN_LOG, None, "ResultLost", "infrastructure"),
    ],
)
def test_a_result_that_there_should_be_and_is_not_is_a_failure(
    report: SidecarReport | None, log: bytes | None, reason: str, cause: str
) -> None:
    """It says that the pod itself succeeded, and whose fault it is."""

    async def call() -> Any:
        world = World(container(do_xcom_push=True))
        if log is not None:
            world.log(log, result_sidecar.NAME)
        return (await world.read(report))[0]

    result = run(call)
    assert isinstance(result, errors.PodFailed)
    assert (result.details["reason"], result.details["cause"]) == (reason, cause)
    assert result.details["exit_code"] == 0
    assert "succeeded, but" in str(result)


# --- a workload of Airflow


def workload_of(expires: object) -> Attempt:
    """An attempt of Airflow's executor, whose token expires then."""
    message = builders.message(name=workload.TASK, args=["{}"], headers={"expires": expires})
    return builders.launched(Attempts(), message=message)


@pytest.mark.parametrize(
    ("expires", "reason"),
    [
        (datetime(2026, 1, 1, tzinfo=UTC).isoformat(), workload.EXPIRED),
        (datetime(2027, 1, 1, tzinfo=UTC).isoformat(), "Error"),
        (None, "Error"),
        ("soon", "Error"),
    ],
)
def test_a_workload_whose_token_had_expired_is_not_the_authors_failure(expires: object, reason: str) -> None:
    """Nothing of the task ran."""
    result = read(builders.ended(1), made=workload_of(expires))
    assert result.details["reason"] == reason
    assert (result.details["cause"] == "infrastructure") is (reason == workload.EXPIRED)


# --- whatever a pod does


@settings(max_examples=60, deadline=None)
@given(
    message=st.text(max_size=200) | st.sampled_from(["[]", "null", "9" * 5000, '{"v":1}', "[" * 5000]),
    exit_code=st.integers(0, 255),
    is_any_image=st.booleans(),
)
def test_nothing_that_a_pod_leaves_raises(message: str, exit_code: int, is_any_image: bool) -> None:
    """The dispatcher is not the pod's to break."""
    made = container(do_xcom_push=True) if is_any_image else builders.launched(Attempts())
    report = result_sidecar.report_of({"status": {"phase": "Succeeded"}})
    assert read(builders.ended(exit_code, message=message), made=made, report=report) is not None
