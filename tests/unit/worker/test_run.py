"""routing.run: from a message to the body's result, or to a failure that says what happened."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Ignore

from dispatcher.protocol import tracebacks
from routing import TaskFailed
from routing.worker import run
from tests import parts

HEAD = "from routing import *\nimport os, sys, logging, time\n"


@dataclass(frozen=True)
class Logs:
    """A place for logs, as the settings have one."""

    folder: Path
    max_bytes: int = 10_000


def message(task_id: str, **fields: Any) -> dict[str, Any]:
    """The arguments of `routing.run` for a task of `f.py`."""
    return {
        "dag_file": "f.py",
        "dag_id": "d",
        "run_id": "manual-1",
        "task_id": task_id,
        "map_index": -1,
        "try_number": 2,
        "logical_date": "2026-03-04T05:06:07+00:00",
        "conf": {"c": 1},
        "inputs": {},
        **fields,
    }


Runner = Callable[..., Any]


@pytest.fixture
def body(tmp_path: Path) -> Runner:
    """Runs tasks of a DAG written as text: `body("task definitions", "task_id", inputs={…})`."""

    def run_body(text: str, task_id: str, *, max_bytes: int = run.MAX_RESULT_BYTES, **fields: Any) -> Any:
        lines = textwrap.dedent(text).strip()
        (tmp_path / "f.py").write_text(
            f"{HEAD}with DAG('d', params={{'p': 'default'}}):\n{textwrap.indent(lines, '    ')}\n"
        )
        return run.execute(message(task_id, **fields), folder=tmp_path, max_bytes=max_bytes, attempt_id="attempt")

    return run_body


def test_a_body_gets_its_arguments_results_and_context(body: Runner) -> None:
    """Constants, upstream results at any depth, and context values by parameter name; None for a missing result."""
    text = """
        @task
        def show(a, b, *, ds, run_id, params, try_number, dag_id=None, other="own"):
            inside = get_current_context()
            return [a, b, ds, run_id, params, try_number, dag_id, other, inside["task_id"], inside["logical_date"].year,
                    inside["attempt_id"], inside["conf"]]
        up, lost = (BashOperator(task_id=name, bash_command="true").output for name in ("up", "lost"))
        show(1, {"x": [up, (lost,)]})
    """
    found = body(text, "show", inputs={"up": {"n": 5}})
    expected = [1, {"x": [{"n": 5}, (None,)]}, "2026-03-04", "manual-1", {"p": "default", "c": 1}, 2, "d", "own"]
    assert found == [*expected, "show", 2026, "attempt", {"c": 1}]


def test_a_body_with_kwargs_gets_the_whole_context(body: Runner) -> None:
    """As in Airflow."""
    found = body("task(lambda **context: sorted(context)).override(task_id='t')()", "t")
    assert set(found) == run.contexts.NAMES


def test_templates_in_arguments_are_rendered_and_results_are_not(body: Runner) -> None:
    """At any depth of what the author wrote; a result that looks like a template stays what it is."""
    text = """
        up = BashOperator(task_id="up", bash_command="true").output
        show = task(lambda *a, **k: [a, k["x"]]).override(task_id="t")
        show("{{ ds }}", ["{{ params.p }}", up], x={"y": "{{ ti.try_number }}"})
        BashOperator(
            task_id="b",
            bash_command="echo ${#A} {{ conf.c }} $A $B",
            env={"A": "{{ run_id }}", "B": up},
        )
    """
    inputs = {"up": "{{ 1 + 1 }}"}
    assert body(text, "t", inputs=inputs) == [("2026-03-04", ["default", "{{ 1 + 1 }}"]), {"y": "2"}]
    assert body(text, "b", inputs=inputs) == "8 1 manual-1 {{ 1 + 1 }}"


def test_a_template_that_cannot_be_rendered_fails_its_task(body: Runner) -> None:
    """With the reason and the path of the text; the body does not run."""
    with pytest.raises(TaskFailed) as failed:
        body("task(print).override(task_id='t')(['{{ params.missing }}'])", "t")
    assert str(failed.value).startswith(
        "op_args[0][0]: the template cannot be rendered: 'dict object' has no attribute"
    )
    assert failed.value.details == {"reason": "TemplateError", "cause": "application"}


def test_a_body_may_change_its_arguments(body: Runner) -> None:
    """Arguments are copies: the next run in the same process gets them fresh."""
    text = "PythonOperator(task_id='t', python_callable=lambda x: x.append(1) or x, op_args=[[]])"
    assert [body(text, "t"), body(text, "t")] == [[1], [1]]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{'a': [1, {2}]}", "the result cannot be stored: $.a[1]: set is not JSON; return a list"),
        ("float('nan')", "the result cannot be stored: $: nan is not JSON; return None or leave it out"),
        ("10 ** 5000", "the result cannot be stored: Exceeds the limit"),
        (
            "'x' * 5_000_000",
            "the result has 5,000,002 bytes as JSON, more than the limit of 1,048,576 (results.max_bytes); write it to",
        ),
    ],
)
def test_a_result_that_cannot_travel_fails_the_task(body: Runner, value: str, message: str) -> None:
    """Named with its place or size, and with the way out."""
    with pytest.raises(TaskFailed) as failed:
        body(f"task(lambda: {value}).override(task_id='t')()", "t")
    assert str(failed.value).startswith(message)
    reason = "ResultTooLarge" if "results.max_bytes" in message else "ResultUnusable"
    assert failed.value.details == {"reason": reason, "cause": "application"}


@pytest.mark.parametrize(("code", "exit_code", "said"), [("3", 3, ""), ("", 0, ""), ("'bad day'", 1, ": bad day")])
def test_sys_exit_in_a_body_is_a_failure_with_its_exit_code(body: Runner, code: str, exit_code: int, said: str) -> None:
    """And ends neither the worker nor the pod before the outcome is told."""
    with pytest.raises(TaskFailed) as failed:
        body(f"task(lambda: sys.exit({code})).override(task_id='t')()", "t")
    assert str(failed.value) == f"the body called sys.exit, exit code {exit_code}{said}"
    assert failed.value.details == {"reason": "Error", "exit_code": exit_code, "cause": "application"}
    assert failed.value.args == (failed.value.message, failed.value.details)


def test_an_error_of_the_body_stays_as_it_is(body: Runner) -> None:
    """Type, message and the author's lines; nothing of ours before them once cleaned."""
    with pytest.raises(ZeroDivisionError, match="by zero") as raised:
        body("task(lambda: 1 // 0).override(task_id='t')()", "t")
    here = raised.value.__traceback__
    assert here is not None
    assert here.tb_next is not None
    text = tracebacks.of_author(raised.value.with_traceback(here.tb_next.tb_next))
    assert [Path(line.split('"')[1]).name for line in text.splitlines() if "File" in line] == ["f.py"]


def test_the_execution_timeout_interrupts_the_body(body: Runner) -> None:
    """With a message that names the limit."""
    with pytest.raises(TaskFailed, match=r"ran longer than its execution_timeout of 0\.2 s") as failed:
        body("task(lambda: time.sleep(30)).override(task_id='t', execution_timeout=0.2)()", "t")
    assert failed.value.details == {"reason": "ExecutionTimeout", "cause": "application"}


def test_a_body_that_goes_on_after_its_time_out_has_failed(body: Runner) -> None:
    """It may catch the interruption and return something: it was late all the same."""
    swallow = """
            def stubborn():
                try:
                    time.sleep(30)
                except BaseException:
                    return "done"
            PythonOperator(task_id='t', python_callable=stubborn, execution_timeout=0.2)"""
    with pytest.raises(TaskFailed, match="ran longer than its execution_timeout") as failed:
        body(textwrap.dedent(swallow).strip(), "t")
    assert failed.value.details == {"reason": "ExecutionTimeout", "cause": "application"}


@pytest.mark.parametrize(
    ("fields", "reason", "cause"),
    [
        ({"dag_file": "gone.py"}, "DagFileMissing", "application"),
        ({"dag_file": "../f.py"}, "DagImportError", "application"),
        ({"dag_file": "/etc/passwd"}, "DagImportError", "application"),
        ({"dag_id": "gone"}, "TaskMissing", "application"),
        ({"task_id": "gone"}, "TaskMissing", "application"),
    ],
)
def test_a_task_that_is_not_here_says_why(body: Runner, fields: dict[str, str], reason: str, cause: str) -> None:
    """A missing file may come (it is being copied); a missing task will not. Nothing outside the folder is executed."""
    with pytest.raises(TaskFailed) as failed:
        body("task(lambda: None).override(task_id='t')()", **{"task_id": "t", **fields})
    assert failed.value.details == {"reason": reason, "cause": cause}


def test_a_file_that_cannot_be_loaded_here_says_why(body: Runner) -> None:
    """For example a package that the scheduler's machine has and this one has not."""
    with pytest.raises(
        TaskFailed, match=r"f\.py cannot be loaded here: ModuleNotFoundError: No module named 'nowhere'"
    ):
        body("import nowhere", "t")


def test_a_changed_file_and_a_changed_helper_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long-lived worker runs what is on disk, and executes an unchanged file once."""
    monkeypatch.setattr(run.dagfile, "RECHECK_S", 0.0)
    helper = tmp_path / "some_helper.py"
    file = tmp_path / "f.py"

    def wrote(text: str, value: str) -> Any:
        helper.write_text(f"value = {value}\n")
        file.write_text(f"{HEAD}import some_helper\n{text}\nwith DAG('d'):\n    task(t)()\n")
        return run.execute(message("t"), folder=tmp_path)

    first = "loads = []\ndef t(): loads.append(1); return [some_helper.value, len(loads)]"
    assert wrote(first, "1") == [1, 1]
    assert run.execute(message("t"), folder=tmp_path) == [1, 2]
    assert wrote(first.replace("len(loads)", "'new'"), "1") == [1, "new"]
    helper.write_text("value = 'changed'\n")
    assert run.execute(message("t"), folder=tmp_path) == ["changed", "new"]


def test_the_last_line_of_bash_is_its_result(body: Runner, capfd: pytest.CaptureFixture[str]) -> None:
    """Of standard output only; both streams are passed on. Environment and results are there; the folder is empty."""
    text = """
        up = EmptyOperator(task_id="up").output
        BashOperator(task_id="b", env={"N": 5, "UP": up}, bash_command=r'''
            ls; echo one; echo "$N $UP $PODYARD_CTX_TASK_ID $PODYARD_CTX_DS $HOME_SET"; echo late >&2''')
    """
    os.environ["HOME_SET"] = "inherited"
    try:
        assert body(text, "b", inputs={"up": {"a": 1}}) == '5 {"a": 1} b 2026-03-04 inherited'
    finally:
        del os.environ["HOME_SET"]
    out, err = capfd.readouterr()
    assert (out, err) == ('one\n5 {"a": 1} b 2026-03-04 inherited\n', "late\n")


@pytest.mark.parametrize(
    ("command", "result"),
    [
        ("true", ""),
        ("sleep 0 & wait; echo waited", "waited"),
        ("cat; echo read", "read"),
        ("printf 'a\\nb'", "b"),
        ("printf 'a\\n\\n'", ""),
        ("echo x; sleep 60 &", "x"),
        ("printf '\\377'", "\\xff"),
    ],
)
def test_bash_with_unusual_output_ends(body: Runner, command: str, result: str) -> None:
    """No output, no last line end, bytes that are no text, a program left in the background (which is ended)."""
    assert body(f"BashOperator(task_id='b', bash_command={command!r})", "b") == result


@pytest.mark.parametrize(
    ("command", "exit_code", "said"),
    [("exit 3", 3, ""), ("kill -9 $$", 137, " (ended by SIGKILL)"), ("no_such_command", 127, "")],
)
def test_a_failing_command_tells_its_exit_code(body: Runner, command: str, exit_code: int, said: str) -> None:
    """As the shell would: 128 and the number for a signal."""
    with pytest.raises(TaskFailed) as failed:
        body(f"BashOperator(task_id='b', bash_command={command!r})", "b")
    assert str(failed.value) == f"the bash command failed with exit code {exit_code}{said}"
    assert failed.value.details == {"reason": "Error", "exit_code": exit_code, "cause": "application"}


def test_env_may_replace_the_environment(body: Runner) -> None:
    """append_env=False: as Airflow does by default."""
    assert body("BashOperator(task_id='b', append_env=False, env={'A': '1'}, bash_command='echo $A$HOME')", "b") == "1"


def test_a_timeout_ends_the_command_and_what_it_started(body: Runner, tmp_path: Path) -> None:
    """No process of the task survives it."""
    pid = tmp_path / "pid"
    with pytest.raises(TaskFailed, match="execution_timeout"):
        body(
            f"BashOperator(task_id='b', execution_timeout=0.5, bash_command='sleep 61 & echo $! > {pid}; sleep 62')",
            "b",
        )
    parts.eventually(lambda: _is_gone(int(pid.read_text())), what="the command is gone")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_command_does_not_outlive_its_task(tmp_path: Path, number: signal.Signals) -> None:
    """A revoked task, a deleted pod, a worker that is killed: nothing of the command goes on, and the process ends as
    the signal says."""
    pid = tmp_path / "pid"
    (tmp_path / "f.py").write_text(
        f"{HEAD}command = 'sleep 61 & echo $! > {pid}; echo up; sleep 60'\n"
        "with DAG('d'):\n    BashOperator(task_id='b', bash_command=command)\n"
    )
    program = f"""
from pathlib import Path
from routing.worker import run
run.execute({message("b")!r}, folder=Path({str(tmp_path)!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "up\n"
    process.send_signal(number)
    assert process.wait(20) == -number
    parts.eventually(lambda: _is_gone(int(pid.read_text())), what="the command is gone")
    process.stdout.close()


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def _app(folder: Path, **options: Any) -> Any:
    app = Celery(broker="memory://", backend="cache+memory://", set_as_current=False)
    run.register(app, folder=folder, **options)
    app.finalize()
    return app.tasks["routing.run"]


def test_a_claimed_attempt_runs_and_a_refused_one_is_dropped(tmp_path: Path) -> None:
    """The second delivery of one message runs no body; Celery stores nothing for it."""
    (tmp_path / "f.py").write_text(f"{HEAD}with DAG('d'):\n    task(lambda: 'ran').override(task_id='t')()\n")
    claims: list[tuple[str, str]] = []

    def claim(attempt_id: str, holder: str) -> bool:
        claims.append((attempt_id, holder))
        return len(claims) == 1

    task = _app(tmp_path, claim=claim)
    assert task.apply(kwargs=message("t"), task_id="one").get() == "ran"
    assert isinstance(task.apply(kwargs=message("t"), task_id="one").result, Ignore)
    assert [(attempt_id, holder.split(":")[1]) for attempt_id, holder in claims] == [("one", str(os.getpid()))] * 2


def test_what_a_body_says_is_in_its_log_and_a_silent_one_has_none(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """print, logging from INFO on, standard error, bash, and the author's part of a traceback."""
    (tmp_path / "f.py").write_text(
        HEAD
        + textwrap.dedent("""
            @task
            def talks():
                print("printed")
                logging.getLogger("mine").info("logged %s", 1)
                logging.getLogger("mine").debug("not this")
                print("to stderr", file=sys.stderr)
            @task
            def silent(): return 1
            @task
            def breaks(): raise ValueError("the reason")
            with DAG("d"):
                talks(); silent(); breaks()
                BashOperator(task_id="bash", bash_command="echo out; echo err >&2")
            """)
    )
    logs = Logs(tmp_path / "logs")
    task = _app(tmp_path, logs=logs)
    for name in ("talks", "silent", "breaks", "bash"):
        task.apply(kwargs=message(name), task_id=name)
    texts = {path.stem: path.read_text() for path in logs.folder.iterdir()}
    assert sorted(texts) == ["bash", "breaks", "talks"]
    printed, logged, error = texts["talks"].splitlines()
    assert (printed, logged.split(" ", 2)[2], error) == ("printed", "INFO mine: logged 1", "to stderr")
    assert sorted(texts["bash"].splitlines()) == ["err", "out"]
    assert texts["breaks"].splitlines()[0] == "Traceback (most recent call last):"
    assert texts["breaks"].splitlines()[-1] == "ValueError: the reason"
    assert "routing" not in texts["breaks"]
    assert capfd.readouterr() == ("", "")


def test_the_pods_app_has_the_task_and_no_addresses(tmp_path: Path) -> None:
    """A pod holds no credential; its start imports nothing heavy (measured by what is in memory, not by a clock)."""
    (tmp_path / "f.py").write_text(
        f"{HEAD}with DAG('d'):\n    task(lambda: print('hi') or 7).override(task_id='t')()\n"
    )
    program = textwrap.dedent(f"""
        import sys
        from routing.worker.run import pod_app
        pod_app.finalize()
        print(pod_app.tasks["routing.run"](**{message("t")!r}))
        print(pod_app.conf.broker_url, pod_app.backend.as_uri())
        heavy = ("sqlalchemy", "pydantic", "kubernetes", "aiohttp", "jinja2", "rich", "redis", "msgspec", "flower")
        print([name for name in heavy if name in sys.modules])
    """)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PODYARD_DAGS__FOLDER": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("hi\n7\nmemory:// disabled://\n[]\n", "")
