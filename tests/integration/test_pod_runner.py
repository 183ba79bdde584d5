"""What a body meets in its pod, and what of it is told: as in a process of Celery's prefork pool. Real processes."""

from pathlib import Path
from typing import Any

import pytest
from celery.utils.serialization import get_pickleable_exception

from dispatcher.pod import failures
from dispatcher.protocol import outcome
from tests.apps import pod_types
from tests.integration import pod_launch as launch


def failure_of(done: launch.Ended) -> outcome.Failure:
    failure = done.outcome.failure
    assert failure is not None
    return failure


def test_a_type_of_the_applications_own_reaches_the_body(tmp_path: Path) -> None:
    """It is known only once the application is imported."""
    assert launch.ran(tmp_path, "cents", pod_types.Money(7)).outcome.value == 7


def test_modules_named_beside_the_application_are_imported(tmp_path: Path) -> None:
    """`celery worker -I`."""
    module = "tests.apps.pod_included"
    name = f"{module}.included"
    assert launch.ran(tmp_path, name, PODYARD_INCLUDE=module).outcome.value == "included"
    assert failure_of(launch.ran(tmp_path, name)).type == "NotRegistered"


def test_logs_have_the_formats_and_handlers_of_the_application(tmp_path: Path) -> None:
    """The task's name and id, what the application adds in after_setup_task_logger, and a print as it is."""
    done = launch.ran(tmp_path, "says")
    assert done.err == f"TASK {launch.APP}.says[id] of the task\nROOT of a library\n"
    assert done.out == "of the task\nprinted\n"


def test_results_are_made_and_passed_on_and_nothing_is_asked_of_them(tmp_path: Path) -> None:
    """Neither broker nor result backend is needed for that."""
    one = [["one", [["zero", None], None]], None]
    assert launch.ran(tmp_path, "results").outcome.value == [one, [["many", None], [one]], True]
    assert launch.ran(tmp_path, "a_result").outcome.value == [["one", None], None]
    assert launch.ran(tmp_path, "on_the_spot").outcome.value == 5


@pytest.mark.parametrize(("how", "kind"), [("state", "PodFailed"), ("delay", "PodFailed"), ("get", "RuntimeError")])
def test_what_needs_credentials_is_refused(tmp_path: Path, how: str, kind: str) -> None:
    """With the setting that gives them; to wait for another result is refused by Celery itself."""
    failure = failure_of(launch.ran(tmp_path, "asks", how))
    assert failure.type == kind
    if kind == "PodFailed":
        assert failure.args[1] == {"reason": "NoCredentials", "cause": "application"}


@pytest.mark.parametrize(
    ("path", "module"), [("bookshop:app", "bookshop"), ("bookshop.tasks:app", "bookshop"), ("tests.none", "tests.none")]
)
def test_an_image_without_the_application_says_so(tmp_path: Path, path: str, module: str) -> None:
    """`No module named …` alone reads like a fault of the body."""
    failure = failure_of(launch.ran(tmp_path, "sleeps", 0, PODYARD_APP=path))
    assert (failure.type, failure.args[1]) == ("PodFailed", {"reason": "AppMissing", "cause": "application"})
    said = f"the image of this pod lacks the application {path}: there is no module {module!r} in it"
    assert failure.args[0].startswith(said)


def test_an_application_that_lacks_a_package_says_which(tmp_path: Path) -> None:
    """That is the application's own error, with its traceback."""
    (tmp_path / "bookshop.py").write_text("import fonts_of_the_shop\n")
    failure = failure_of(launch.ran(tmp_path, "sleeps", 0, PODYARD_APP="bookshop:app"))
    assert (failure.type, list(failure.args)) == ("ModuleNotFoundError", ["No module named 'fonts_of_the_shop'"])
    assert 'bookshop.py", line 1' in failure.traceback


@pytest.mark.parametrize("kind", ["named", "named value", "formats", "object", "long"])
def test_an_exception_is_told_as_prefork_tells_it(tmp_path: Path, kind: str) -> None:
    """Its class and arguments, or what Celery makes of one that cannot be made again from them."""
    with pytest.raises(Exception, match=r"^(no|code 7|<class .*|x+|)$") as raised:
        pod_types.raises(kind)
    expected = get_pickleable_exception(raised.value)
    failure = failure_of(launch.ran(tmp_path, "raises", kind))
    assert (failure.module, failure.type) == (type(expected).__module__, type(expected).__qualname__)
    plain = [list(one) if isinstance(one, tuple) else one for one in expected.args]
    assert [str(one) for one in failure.args] == [str(one) for one in plain]
    assert "in raises" in failure.traceback


def test_a_retry_that_cannot_be_sent_is_rejected(tmp_path: Path) -> None:
    """As Celery's Task.retry does it; the pod leaves an outcome."""
    done = launch.ran(tmp_path, "retries_with")
    assert (done.outcome.state, done.outcome.retry) == ("REJECTED", None)
    assert "not JSON serializable" in failure_of(done).args[0]


def test_a_result_that_cannot_travel_says_what_happened(tmp_path: Path) -> None:
    """Too large is not the same as without a JSON form."""
    large = failure_of(launch.ran(tmp_path, "value", "long", PODYARD_RESULT_MAX_BYTES="1000"))
    strange = failure_of(launch.ran(tmp_path, "value", "set"))
    assert large.args[1]["reason"] == "ResultTooLarge"
    assert large.args[0].startswith("the result has 100002 bytes, more than the limit of 1000 (results.max_bytes)")
    assert strange.args[1]["reason"] == "ResultUnusable"
    assert strange.args[0].startswith("the result has no JSON form: Object of type set is not JSON serializable")


@pytest.mark.parametrize("how", ["objects", "descriptors"])
def test_a_body_that_closes_its_files_leaves_its_outcome(tmp_path: Path, how: str) -> None:
    """A large one has no way out then, and says so."""
    assert launch.ran(tmp_path, "closes_its_files", how, 10).outcome.value == "x" * 10
    failure = launch.ran(tmp_path, "closes_its_files", how, 9000).outcome.failure
    assert failure is not None
    assert "standard output takes no log" in failure.args[0]


def test_a_pod_without_a_message_says_so(tmp_path: Path) -> None:
    """Exit code 2, one line."""
    done = launch.ran(tmp_path, "sleeps", 0, PODYARD_MESSAGE="{")
    assert (done.exit_code, done.message) == (2, "")
    assert done.err.startswith("podyard: no task message: not a task message of Podyard")


@pytest.mark.parametrize(("code", "exit_code"), [(None, 0), (3, 3), ("bye", 1)])
def test_sys_exit_is_a_failure_with_its_code(code: Any, exit_code: int) -> None:
    """The body ended the process; whether that was meant well nobody knows."""
    failure = failures.of(SystemExit(code))
    assert failure.args[1] == {"reason": "Error", "cause": "application", "exit_code": exit_code}
