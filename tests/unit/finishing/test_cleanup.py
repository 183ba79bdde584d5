"""The clean-up: the log is saved, then the pod goes or stays, and what fails once is tried again within bounds."""

import asyncio
import stat
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher import errors
from dispatcher.attempts.attempt import Ending
from dispatcher.attempts.registry import Attempts
from dispatcher.background import Background
from dispatcher.finishing import cleanup
from dispatcher.finishing.cleanup import Cleanup, EndedPod
from dispatcher.manifests import builder
from dispatcher.manifests.container_pod_options import Logs, PodOptions
from dispatcher.options import Options, QueueProfile
from tests import builders, fake_api, fast_time

AWAY = errors.ApiUnavailable("the API server is away")
FORBIDDEN = errors.ApiError(403, "Forbidden", "no")
DONE = {"podyard.dev/done": "true"}


class World:
    """The clean-up at a fake API server."""

    def __init__(self, folder: Path | None, **options: Any) -> None:
        self.api = fake_api.FakeApi()
        self.background = Background()
        given = {"profile_for": lambda queue: QueueProfile(), "app_path": "a:app", "log_folder": folder, **options}
        self.cleanup = Cleanup(self.api, options=Options(**given), background=self.background)  # type: ignore[arg-type]
        self.folder = folder

    def ended(self, name: str = "p", *, log: bytes | None = b"hello\n", **fields: Any) -> EndedPod:
        """A pod that has ended, with its log."""
        pod = self.api.add_pod(builders.manifest(name))
        self.api.end(name)
        if log is not None:
            self.api.logs["default", name, "base"] = log
        given = {"attempt_id": f"task-{name}", "profile": QueueProfile(), "is_success": True, **fields}
        return EndedPod(namespace="default", pod=name, uid=pod["metadata"]["uid"], **given)

    def labels(self, name: str = "p") -> dict[str, str]:
        """Those of a pod that is there."""
        return self.api.pods["default", name]["metadata"]["labels"]

    def saved(self, name: str = "p") -> bytes | None:
        """The log of a pod, as it was saved."""
        assert self.folder is not None
        path = cleanup.log_path(self.folder, f"task-{name}")
        return path.read_bytes() if path.exists() else None

    async def settle(self) -> None:
        """What was begun is done."""
        while self.background._tasks:
            await asyncio.wait(list(self.background._tasks))


def using(test: Callable[[World], Awaitable[Any]], folder: Path | None, **options: Any) -> Any:
    """Runs a test in a world of its own, whose clock jumps."""

    async def run() -> Any:
        return await test(World(folder, **options))

    return fast_time.run(run())


# --- what becomes of the pod


def test_the_log_is_saved_before_the_pod_goes(tmp_path: Path) -> None:
    """Both are gone for good otherwise."""

    async def test(world: World) -> None:
        world.cleanup.take(world.ended())
        await world.settle()
        assert (world.api.pods, world.saved(), world.cleanup.leftovers) == ({}, b"hello\n", 0)

    using(test, tmp_path)


@pytest.mark.parametrize(
    ("rule", "action", "is_success", "is_kept"),
    [
        ("always", None, True, False),
        ("always", None, False, False),
        ("succeeded", None, True, False),
        ("succeeded", None, False, True),
        ("never", None, True, True),
        ("never", "delete_pod", False, False),
        ("always", "keep_pod", True, True),
        ("always", "delete_succeeded_pod", False, True),
        ("never", "delete_succeeded_pod", True, False),
        ("always", "delete_active_pod", True, True),
    ],
)
def test_the_pod_goes_or_stays_by_its_senders_word_and_else_by_its_queues_rule(
    tmp_path: Path, rule: Any, action: str | None, is_success: bool, is_kept: bool
) -> None:
    """One that stays is marked, so that nobody takes it for work that is left."""

    async def test(world: World) -> None:
        wanted = PodOptions(on_finish_action=action)
        world.cleanup.take(world.ended(profile=QueueProfile(delete=rule), is_success=is_success, options=wanted))
        await world.settle()
        assert [pod["metadata"]["labels"] for pod in world.api.pods.values()] == [DONE] * is_kept

    using(test, tmp_path)


def test_a_pod_some_of_whose_containers_run_goes_where_only_such_are_deleted(tmp_path: Path) -> None:
    """Its task has ended, a sidecar of its has not."""

    async def test(world: World) -> None:
        ended = world.ended(options=PodOptions(on_finish_action="delete_active_pod"))
        world.api.set_status("p", phase="Running")
        world.cleanup.take(ended)
        await world.settle()
        assert world.api.pods == {}

    using(test, tmp_path)


@pytest.mark.parametrize("error", [AWAY, FORBIDDEN, errors.ApiError(404, "NotFound", "")])
def test_a_pod_that_cannot_be_looked_at_is_kept_where_only_active_ones_are_deleted(
    tmp_path: Path, error: Exception
) -> None:
    """It may hold what somebody wants to see."""

    async def test(world: World) -> None:
        world.api.fail("read_pod", error)
        world.cleanup.take(world.ended(options=PodOptions(on_finish_action="delete_active_pod")))
        await world.settle()
        assert world.labels() == DONE

    using(test, tmp_path)


def test_a_pod_may_stay_for_a_while(tmp_path: Path) -> None:
    """It is marked at once, and goes when its time is over."""

    async def test(world: World) -> None:
        world.cleanup.take(world.ended(profile=QueueProfile(keep_finished_s=600)))
        await asyncio.sleep(599)
        assert world.labels() == DONE
        await asyncio.sleep(2)
        assert world.api.pods == {}

    using(test, tmp_path)


def test_pods_that_stay_for_a_while_keep_no_other_from_being_cleaned_up(tmp_path: Path) -> None:
    """They wait without a slot."""

    async def test(world: World) -> None:
        kept = QueueProfile(keep_finished_s=600)
        for number in range(cleanup.AT_ONCE + 1):
            world.cleanup.take(world.ended(f"kept-{number}", profile=kept))
        world.cleanup.take(world.ended("other"))
        await asyncio.sleep(1)
        assert ("default", "other") not in world.api.pods

    using(test, tmp_path)


def test_of_a_pod_that_is_gone_there_is_nothing_to_do(tmp_path: Path) -> None:
    """Neither for a policy nor for an order."""

    async def test(world: World) -> None:
        for step in (world.cleanup.take, world.cleanup.delete):
            step(
                EndedPod(
                    attempt_id="a",
                    namespace="d",
                    pod="p",
                    uid="u",
                    profile=QueueProfile(),
                    is_success=True,
                    is_gone=True,
                )
            )
        await world.settle()
        assert sum(world.api.calls.values()) == 0

    using(test, tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- revoked, or put back


def test_the_pod_of_a_revoked_task_goes_and_its_log_so_far_is_saved(tmp_path: Path) -> None:
    """Whatever its queue's rule for pods that ended."""

    async def test(world: World) -> None:
        world.cleanup.kill(world.ended(profile=QueueProfile(delete="never")))
        await world.settle()
        assert (world.api.pods, world.saved()) == ({}, b"hello\n")

    using(test, tmp_path)


def test_the_pod_of_a_revoked_task_may_be_left_alone(tmp_path: Path) -> None:
    """Its sender wants to see it; it is out of our selectors."""

    async def test(world: World) -> None:
        world.cleanup.kill(world.ended(options=PodOptions(on_kill_action="keep_pod")))
        await world.settle()
        assert (world.labels(), world.saved()) == (DONE, b"hello\n")

    using(test, tmp_path)


def test_a_pod_that_must_go_goes_as_the_cluster_ends_pods(tmp_path: Path) -> None:
    """With its grace period: its body may have something to clean up itself."""

    async def test(world: World) -> None:
        ended = world.ended(profile=QueueProfile(delete="never"))
        world.api.run("p")
        world.cleanup.delete(ended)
        await world.settle()
        assert world.api.pods["default", "p"]["metadata"]["deletionGracePeriodSeconds"] == 30

    using(test, tmp_path)


# --- what fails


@pytest.mark.parametrize("call", ["read_log", "patch_pod", "delete_pod"])
def test_a_step_that_fails_is_tried_again(tmp_path: Path, call: str) -> None:
    """With back-off, a bounded number of times."""

    async def test(world: World) -> None:
        world.api.fail(call, AWAY, errors.ApiError(500, "E", ""), errors.ApiError(429, "TooManyRequests", ""))
        world.cleanup.take(world.ended(profile=QueueProfile(keep_finished_s=1)))
        await world.settle()
        assert (world.api.pods, world.saved(), world.cleanup.leftovers) == ({}, b"hello\n", 0)

    using(test, tmp_path)


def test_a_log_that_cannot_be_had_keeps_no_pod(tmp_path: Path) -> None:
    """The outcome is stored; a log is given up after all tries."""

    async def test(world: World) -> None:
        world.api.fail("read_log", AWAY, times=99)
        world.cleanup.take(world.ended())
        await world.settle()
        assert (world.api.pods, world.saved()) == ({}, None)
        assert world.api.calls["read_log"] == cleanup.BACKOFF.tries

    using(test, tmp_path)


@pytest.mark.parametrize("error", [AWAY, FORBIDDEN])
@pytest.mark.parametrize("order", ["take", "delete", "kill"])
def test_a_pod_that_cannot_be_deleted_is_counted(tmp_path: Path, error: Exception, order: str) -> None:
    """Once, after all tries."""

    async def test(world: World) -> None:
        world.api.fail("delete_pod", error, times=99)
        getattr(world.cleanup, order)(world.ended())
        await world.settle()
        assert (world.cleanup.leftovers, world.api.calls["delete_pod"]) == (1, cleanup.BACKOFF.tries)

    using(test, tmp_path)


def test_a_pod_that_somebody_has_deleted_meanwhile_is_no_leftover(tmp_path: Path) -> None:
    """Nor is its log waited for."""

    async def test(world: World) -> None:
        ended = world.ended()
        world.api.remove("p")
        world.cleanup.take(ended)
        await world.settle()
        assert (world.cleanup.leftovers, world.saved(), world.api.calls["read_log"]) == (0, None, 1)

    using(test, tmp_path)


def test_a_fault_in_one_step_loses_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Such as a text that cannot be written: the pod goes all the same."""

    async def test(world: World) -> None:
        world.cleanup.take(world.ended(epilogue=("half a character: \ud800",)))
        await world.settle()
        assert (world.api.pods, world.cleanup.leftovers) == ({}, 0)

    using(test, tmp_path)
    assert "UnicodeEncodeError" in caplog.text


def test_a_folder_that_cannot_be_written_keeps_no_pod(tmp_path: Path) -> None:
    """A disk that is full, or a folder that is a file."""
    blocked = tmp_path / "logs"
    blocked.write_text("no folder")

    async def test(world: World) -> None:
        world.cleanup.take(world.ended())
        await world.settle()
        assert world.api.pods == {}

    using(test, blocked)


def test_another_pod_of_the_same_name_is_not_touched(tmp_path: Path) -> None:
    """Neither deleted nor marked: it is the next launch's."""

    async def test(world: World) -> None:
        for rule in ("always", "never"):
            ended = world.ended(rule, profile=QueueProfile(delete=rule))  # type: ignore[arg-type]
            world.api.remove(rule)
            world.api.add_pod(builders.manifest(rule))
            world.cleanup.take(replace(ended))
        await world.settle()
        assert [pod["metadata"]["labels"] for pod in world.api.pods.values()] == [{}, {}]
        assert world.cleanup.leftovers == 0

    using(test, tmp_path)


def test_a_clean_up_that_is_cut_off_leaves_the_pod_to_the_next_dispatcher(tmp_path: Path) -> None:
    """At whichever step: it is not marked, and is found again."""

    async def test(world: World) -> None:
        for call in ("read_log", "delete_pod"):
            world.api.hold(call)
            world.cleanup.take(world.ended(call))
            await fast_time.until(lambda call=call: world.api.calls[call])  # type: ignore[misc]
            await world.background.cancel()
            assert world.labels(call) == {}
            world.api.hold(call).set()

    using(test, tmp_path)


def test_so_many_are_cleaned_up_at_once_and_fewer_logs_are_read(tmp_path: Path) -> None:
    """A thousand pods that end together are no flood."""

    async def test(world: World) -> None:
        gate = world.api.hold("read_log")
        for number in range(cleanup.AT_ONCE * 2):
            world.cleanup.take(world.ended(f"p-{number}"))
        await asyncio.sleep(1)
        assert world.api.calls["read_log"] == cleanup.LOGS_AT_ONCE
        deletes = world.api.hold("delete_pod")
        gate.set()
        await asyncio.sleep(1)
        await fast_time.until(lambda: world.api.calls["delete_pod"] == cleanup.AT_ONCE)
        deletes.set()
        await world.settle()
        assert world.api.pods == {}

    using(test, tmp_path)


# --- the log


def test_without_a_folder_no_log_is_read() -> None:
    """The pod goes."""

    async def test(world: World) -> None:
        world.cleanup.take(world.ended())
        await world.settle()
        assert (world.api.pods, world.api.calls["read_log"]) == ({}, 0)

    using(test, None)


def test_a_log_is_cut_at_its_limit_and_says_so(tmp_path: Path) -> None:
    """One that fits exactly is whole."""

    async def test(world: World) -> None:
        world.cleanup.take(world.ended("fits", log=b"x" * 10))
        world.cleanup.take(world.ended("long", log=b"x" * 11))
        await world.settle()
        assert world.saved("fits") == b"x" * 10
        saved = world.saved("long") or b""
        assert saved.startswith(b"x" * 10 + b"\n")
        assert "longer than 10 bytes (logs.max_bytes)" in saved.decode()

    using(test, tmp_path, log_max_bytes=10)


@pytest.mark.parametrize(
    ("log", "saved"),
    [
        (b"x\n", b"x\n-- why\n-- what\n"),
        (b"x", b"x\n-- why\n-- what\n"),
        (b"", b"-- why\n-- what\n"),
        (None, b"-- why\n-- what\n"),
    ],
)
def test_how_it_failed_follows_its_log(tmp_path: Path, log: bytes | None, saved: bytes) -> None:
    """Also where a container never started and has none."""

    async def test(world: World) -> None:
        world.cleanup.take(world.ended(log=log, epilogue=("why", "what")))
        await world.settle()
        assert world.saved() == saved

    using(test, tmp_path)


def test_a_pod_without_a_log_leaves_no_empty_file(tmp_path: Path) -> None:
    """A file says that there was one."""

    async def test(world: World) -> None:
        world.cleanup.take(world.ended(log=None))
        await world.settle()

    using(test, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_logs_of_all_containers_are_saved_where_that_is_asked_for(tmp_path: Path) -> None:
    """The pod is read for their names."""

    async def test(world: World) -> None:
        ended = world.ended(options=PodOptions(logs=Logs(is_all=True)))
        world.api.pods["default", "p"]["spec"]["containers"].append({"name": "side"})
        world.api.logs["default", "p", "side"] = b"beside\n"
        world.cleanup.take(ended)
        await world.settle()
        assert world.saved() == b"[base] hello\n[side] beside\n"

    using(test, tmp_path)


def test_a_saved_log_is_not_for_everybody_on_the_machine(tmp_path: Path) -> None:
    """It may hold what its author printed by mistake."""

    async def test(world: World) -> None:
        world.cleanup.take(world.ended())
        await world.settle()

    using(test, tmp_path)
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0


@given(st.text())
def test_a_log_is_inside_the_folder_whatever_the_id_says(attempt_id: str) -> None:
    """Ids are texts of senders."""
    path = cleanup.log_path(Path("/logs"), attempt_id)
    assert path.parent == Path("/logs")
    assert path.resolve().parent == Path("/logs")


# --- what it is told


def test_an_attempt_is_cleaned_up_as_it_ended() -> None:
    """With the lines for its log, unless its sender wants none."""
    attempts = Attempts()
    one = builders.launched(attempts)
    attempts.end(one, Ending(is_pod_gone=True, epilogue=("why",)))
    ended = cleanup.ended_attempt(one, is_success=False)
    assert (ended.attempt_id, ended.pod, ended.uid, ended.is_gone, ended.epilogue) == (
        *(one.id, one.pod.name, one.pod.uid, True, ("why",)),
    )
    assert cleanup.ended_attempt(one, is_success=False, epilogue=("other",)).epilogue == ("other",)
    message = builders.message(name=builder.ANY_IMAGE_TASK, kwargs={"log_events_on_failure": False})
    quiet = builders.launched(attempts, message=message)
    attempts.end(quiet, Ending(epilogue=("why",)))
    assert cleanup.ended_attempt(quiet, is_success=False).epilogue == ()


def test_a_pod_that_was_found_is_cleaned_up_as_its_message_asks() -> None:
    """One whose message cannot be read, as a task's pod is."""
    message = builders.message(name=builder.ANY_IMAGE_TASK, kwargs={"on_finish_action": "keep_pod"})
    one = builders.launched(Attempts(), message=message)
    pod = builders.pod_of(one)
    found = cleanup.ended_pod(pod, attempt_id=one.id, profile=QueueProfile(), is_success=True)
    assert (found.pod, found.uid, found.options.on_finish_action) == (one.pod.name, one.pod.uid, "keep_pod")
    del pod["metadata"]["annotations"]["podyard.dev/message"]
    unread = cleanup.ended_pod(pod, attempt_id=one.id, profile=QueueProfile(), is_success=True)
    assert unread.options == PodOptions()
