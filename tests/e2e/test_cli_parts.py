"""The installed `podyard` with its parts started one by one, as an operator does: processes, runs, tasks, pods."""

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import parts
from tests.parts import eventually
from tests.terminal import PODYARD, Answer, environment, inside, installed, on_a_terminal

DAGS = """
import os, pathlib, time
from routing import DAG, BashOperator, task

@task
def silent():
    return {"answer": 42}

@task(queue="kubernetes")
def colourful(before):
    print("\\x1b[31mred\\x1b[0m \\x07bell", "Grüße", flush=True)
    return "\\x1b[2J\\u202eresult"

@task(queue="nobody")
def alone():
    pass

@task(queue="kubernetes")
def patient():
    print("waiting", flush=True)
    while not pathlib.Path(FOLDER, "go").exists():
        time.sleep(0.05)
    print("done", flush=True)

@task
def after(exits):
    pass

with DAG("good", description="both sides"):
    colourful(silent())
with DAG("bad"):
    after(BashOperator(task_id="exits", bash_command="echo last words; exit 3").output)
with DAG("stuck"):
    alone()
with DAG("slow"):
    patient()
"""
PROCESSES = ("scheduler", "worker", "dispatcher")


class Yard:
    """An installation whose parts were started before the broker was there."""

    def __init__(self, folder: Path, valkey: parts.Valkey) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "dags").mkdir(parents=True)
        (folder / "dags/mixed.py").write_text(DAGS.replace("FOLDER", repr(str(folder))))
        (folder / "dags/broken.py").write_text("from routing import DAG\nwith DAG('x'\n")
        (folder / "podyard.toml").write_text(
            f"""
            deployment = "cli"
            [broker]
            url = "{valkey.fresh().url}"
            [results]
            url = "{valkey.fresh().url}"
            [kubernetes]
            kubeconfig = ".podyard/cluster/kubeconfig"
            [dags]
            refresh_s = 0.5
            [worker]
            concurrency = 2
            [queues.kubernetes]
            keep_finished_s = 600
            env = {{ PODYARD_DAGS__FOLDER = "{folder}/dags" }}
            """
        )

    def start(self, part: str, *words: str) -> None:
        self.processes[part] = parts.start([PODYARD, part, *words], log=self.folder / f"{part}.log", cwd=self.folder)

    def log(self, part: str) -> str:
        text = (self.folder / f"{part}.log").read_text()
        assert self.processes[part].poll() is None, text
        return text

    def call(self, *words: str) -> Answer:
        return inside(self.folder, *words)

    def json(self, *words: str) -> Any:
        answer = self.call(*words, "--output", "json")
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout)

    def trigger(self, dag: str) -> str:
        run_id: str = self.json("dags", "trigger", dag)["run_id"]
        return run_id

    def background(self, *words: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [PODYARD, *words],
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    folder = tmp_path_factory.mktemp("cli")
    valkey = parts.Valkey.start(folder / "valkey")
    found = Yard(folder / "work", valkey)
    try:
        valkey.kill()
        assert found.call("db", "upgrade").returncode == 0
        for part in PROCESSES:
            found.start(part)
        for part in PROCESSES:
            eventually(lambda part=part: "waiting for the broker" in found.log(part), 20, what=f"{part} waits")
        valkey.restart()
        eventually(lambda: "waiting for the Kubernetes API server" in found.log("dispatcher"), 20, what="it waits")
        found.start("local-cluster")
        for part in ("worker", "dispatcher"):
            eventually(lambda part=part: f"{part}@" in found.log(part) and "ready" in found.log(part), 30, what=part)
        eventually(lambda: found.json("dags", "list"), 20, every_s=0.2, what="DAGs are found")
        yield found
    finally:
        for process in found.processes.values():
            parts.stop(process)
        valkey.stop()


@pytest.fixture(scope="module")
def good(yard: Yard) -> Answer:
    """A run that went well, followed to its end."""
    return installed(yard.folder, "dags", "trigger", "good", "--run-id", "good-1", "--wait")


@pytest.fixture(scope="module")
def bad(yard: Yard) -> Answer:
    """A run of which a task failed, followed to its end."""
    return yard.call("dags", "trigger", "bad", "--run-id", "bad-1", "--wait")


class TestParts:
    def test_a_part_that_starts_too_early_waits_and_says_for_what(self, yard: Yard) -> None:
        """No traceback, no restart loop: one line for each reason, and one when it goes on."""
        for part in PROCESSES:
            log = yard.log(part)
            assert log.count("waiting for the broker") == 1
            assert "the broker answers now" in log
            assert "Traceback" not in log

    def test_everything_that_the_settings_name_is_found(self, yard: Yard) -> None:
        """`config check` says ok for each."""
        assert {one["result"] for one in yard.json("config", "check")} == {"ok"}

    def test_health_names_each_process_and_what_it_needs(self, yard: Yard) -> None:
        """Read from files alone; the exit code says that all is well."""
        eventually(lambda: yard.call("health").returncode == 0, 20, every_s=0.5, what="all have begun to work")
        found = {(one["process"].partition("@")[0], one["part"]): one["state"] for one in yard.json("health")}
        assert found == {
            (process, part): "ok"
            for process, parts in (
                ("scheduler", ("process", "broker", "result backend", "database")),
                ("worker", ("process", "broker", "result backend")),
                ("dispatcher", ("process", "broker", "result backend", "database", "API server")),
            )
            for part in parts
        }

    def test_a_worker_consumes_the_default_queue_and_a_dispatcher_its_rules(self, yard: Yard) -> None:
        """Without being told."""
        assert re.search(r"\.> default\s", yard.log("worker"))
        assert re.search(r"\.> kubernetes\s", yard.log("dispatcher"))
        assert ".> concurrency: 2 (prefork)" in yard.log("worker")
        assert re.search(r"\.> concurrency: 100 \(\S+\)", yard.log("dispatcher"))


class TestDags:
    def test_they_are_listed_and_a_broken_file_is_told(self, yard: Yard) -> None:
        """The other files are not held up by it."""
        assert [dag["dag_id"] for dag in yard.json("dags", "list")] == ["bad", "good", "slow", "stuck"]
        assert re.search(r"cannot be used: .*broken\.py:2: ", yard.call("dags", "list").stderr)
        (error,) = yard.json("dags", "list", "--errors")
        assert (error["file"], error["line"]) == ("broken.py", 2)

    def test_show_tells_the_side_of_each_task(self, yard: Yard) -> None:
        """As the router decides it now."""
        tasks = {task["task_id"]: task for task in yard.json("dags", "show", "good")["tasks"]}
        assert {name: (task["side"], task["upstream"]) for name, task in tasks.items()} == {
            "silent": ("celery", []),
            "colourful": ("kubernetes", ["silent"]),
        }
        assert re.search(r"colourful +python +kubernetes +kubernetes", yard.call("dags", "show", "good").stdout)

    def test_a_name_that_is_nearly_right_gets_a_hint(self, yard: Yard) -> None:
        """Typing mistakes are the usual ones."""
        answer = yard.call("dags", "trigger", "godo")
        assert answer.returncode == 1
        assert "did you mean 'good'?" in answer.stderr

    def test_a_run_id_cannot_be_taken_twice(self, yard: Yard, good: object) -> None:
        """One line says so."""
        answer = yard.call("dags", "trigger", "good", "--run-id", "good-1")
        assert (answer.returncode, answer.stderr.count("\n")) == (1, 1)
        assert "'good-1'" in answer.stderr


class TestGoodRun:
    def test_waiting_for_it_ends_well_and_tells_each_change(self, yard: Yard, good: Answer) -> None:
        """The story goes to stderr."""
        assert good.returncode == 0, good.stderr
        assert re.search(r"colourful success \(kubernetes, queue kubernetes, good-colourful-", good.stderr)
        assert "run good-1 of good: success (2 success)" in good.stderr

    def test_tasks_list_shows_side_place_state_and_result(self, yard: Yard, good: object) -> None:
        """Of both halves, in JSON whole, in the table short and harmless."""
        tasks = {task["task_id"]: task for task in yard.json("tasks", "list", "good-1")}
        assert {name: (task["state"], task["side"]) for name, task in tasks.items()} == {
            "silent": ("success", "celery"),
            "colourful": ("success", "kubernetes"),
        }
        assert tasks["silent"]["result"] == {"answer": 42}
        assert tasks["colourful"]["result"] == "\x1b[2J\u202eresult"
        assert tasks["colourful"]["pod"].startswith("good-colourful-")
        table = yard.call("tasks", "list", "good-1").stdout
        assert re.search(r'silent +success +default +celery +\S+ +1 +\d+\.\d +\{"answer": 42\}', table)
        assert tasks["colourful"]["pod"] in table
        for text in (table, yard.call("tasks", "list", "good-1", "-o", "json").stdout):
            assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)

    def test_runs_show_is_the_run_and_its_tasks(self, yard: Yard, good: object) -> None:
        """A part of the run's id is enough; YAML says the same as JSON."""
        found = yard.json("runs", "show", "good-1")
        assert (found["run_id"], found["state"], len(found["tasks"])) == ("good-1", "success", 2)
        assert yaml.safe_load(yard.call("runs", "show", "ood-1", "--output", "yaml").stdout) == found
        assert "run good-1 of good: success (2 success)" in yard.call("runs", "show", "good").stdout

    def test_a_pods_log_was_saved_and_is_printed_harmless(self, yard: Yard, good: object) -> None:
        """By task, by attempt and by pod."""
        task = next(task for task in yard.json("tasks", "list", "good-1") if task["task_id"] == "colourful")
        texts = [
            installed(yard.folder, "tasks", "logs", "good-1", "colourful"),
            yard.call("tasks", "logs", task["attempt"][:8]),
            yard.call("pods", "logs", task["pod"]),
        ]
        assert [text.stdout for text in texts] == ["red bell Grüße\n"] * 3

    def test_a_silent_task_has_no_log_and_that_is_no_failure(self, yard: Yard, good: object) -> None:
        """It says so on stderr."""
        answer = yard.call("tasks", "logs", "good-1", "silent")
        assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "attempt 1 printed nothing\n")

    def test_pods_list_shows_the_pod(self, yard: Yard, good: object) -> None:
        """As long as it is recorded."""
        (pod,) = [pod for pod in yard.json("pods", "list") if pod["name"].startswith("good-")]
        assert (pod["phase"], pod["queue"], pod["deployment"]) == ("Succeeded", "kubernetes", "cli")


class TestNarrowTerminal:
    @pytest.mark.parametrize(
        "words",
        [
            "dags list",
            "dags show good",
            "runs list",
            "runs show good-1",
            "tasks list good-1",
            "pods list",
            "queues list",
        ],
    )
    def test_every_list_is_readable_at_80_columns(self, yard: Yard, good: object, words: str) -> None:
        """No line is wider, and no name is broken into pieces: it can be copied."""
        shown = on_a_terminal(yard.folder, *words.split(), env={"NO_COLOR": "1"})
        lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
        assert max(map(len, lines)) <= 80, lines
        wanted = {
            "dags list": ["good", "mixed.py"],
            "dags show good": ["colourful", "kubernetes"],
            "runs list": ["good-1", "success"],
            "runs show good-1": ["colourful", "kubernetes"],
            "tasks list good-1": [yard.json("tasks", "list", "good-1")[0]["task_id"], "kubernetes", "success"],
            "pods list": [yard.json("pods", "list")[0]["name"], "kubernetes", "good.colourful"],
            "queues list": ["kubernetes", "default"],
        }
        told = " ".join(lines).split()
        assert [name for name in wanted[words] if name not in told] == []


class TestBadRun:
    def test_waiting_for_it_fails_with_the_task_and_why(self, yard: Yard, bad: Answer) -> None:
        """The last line is the failure."""
        assert bad.returncode == 1
        last = bad.stderr.splitlines()[-1]
        assert last.startswith("podyard: run bad-1 of bad failed: task 'exits': ")
        assert "exit code 3" in last
        assert last.endswith("see `podyard tasks explain bad-1 exits`")

    def test_explain_gives_reason_exit_code_cause_place_times_and_what_to_do(self, yard: Yard, bad: object) -> None:
        """In words, and for programs."""
        lines = yard.call("tasks", "explain", "bad-1", "exits").stdout
        assert "exits of bad, run bad-1: failed" in lines
        assert lines.count("exit code 3") == 2, "what happened, and what that means"
        story = [line.partition(":")[0] for line in lines.splitlines()[1:5]]
        assert story == ["what happened", "why", "whose", "what to do"]
        assert "whose: the task's author's; failed, and it has no retries" in lines
        assert re.search(r"attempt 1: created .*, sent .*, started .*, ended ", lines)
        assert lines.count("`podyard tasks logs bad-1 exits`") == 1
        facts = yard.json("tasks", "explain", "bad-1", "exits")
        attempt = facts["attempts"][-1]
        assert (attempt["exit_code"], attempt["cause"], attempt["side"]) == (3, "application", "celery")
        assert attempt["host"]
        assert facts["next"]

    def test_explain_points_from_a_task_that_did_not_run_to_the_one_that_failed(self, yard: Yard, bad: object) -> None:
        """Upstream failed: look there."""
        lines = yard.call("tasks", "explain", "bad-1", "after").stdout
        assert "upstream exits is failed" in lines
        assert "next: why: `podyard tasks explain bad-1 exits`" in lines

    def test_logs_hold_its_last_words(self, yard: Yard, bad: object) -> None:
        """All of them, or the last ones."""
        whole = yard.call("tasks", "logs", "bad-1", "exits").stdout
        assert whole.startswith("last words\n")
        assert yard.call("tasks", "logs", "bad-1", "exits", "--tail", "1").stdout == whole.splitlines(keepends=True)[-1]

    def test_what_does_not_exist_is_told_in_one_line(self, yard: Yard, good: object, bad: object) -> None:
        """With what there is."""
        expected = {
            ("tasks", "explain", "bad-1", "exit"): "did you mean 'exits'?",
            ("tasks", "explain", "nothing-1", "exits"): "there is no run 'nothing-1'",
            ("runs", "show", "d-1"): "2 runs fit 'd-1': ",
            ("tasks", "logs", "bad-1", "after"): "has not been sent yet (upstream_failed)",
            ("tasks", "logs", "bad-1", "exits", "--attempt", "2"): "has no attempt 2; it has 1",
            ("runs", "cancel", "bad-1"): "has ended already (failed)",
        }
        for command, words in expected.items():
            answer = yard.call(*command)
            assert (answer.returncode, answer.stderr.count("\n")) == (1, 1), answer
            assert words in answer.stderr


class TestWaiting:
    def test_a_queue_that_nobody_consumes_is_explained_and_the_run_can_be_cancelled(self, yard: Yard) -> None:
        """With the command that helps."""
        run = yard.trigger("stuck")
        lines = eventually(
            lambda: _with("no worker consumes the queue 'nobody'", yard.call("tasks", "explain", run, "alone").stdout),
            20,
            every_s=0.2,
            what="the reason is told",
        )
        assert "what to do: start a consumer of its queue: `podyard worker --queues nobody`" in lines
        assert yard.call("tasks", "logs", run, "alone").returncode == 1
        assert yard.call("runs", "cancel", run).returncode == 0
        assert yard.json("runs", "show", run)["state"] == "cancelled"

    def test_a_running_pod_is_seen_followed_and_left_by_ctrl_c(self, yard: Yard) -> None:
        """Ctrl-C ends a look quietly with 130 and does not touch what is looked at."""
        run = yard.trigger("slow")
        eventually(
            lambda: yard.json("tasks", "list", run)[0]["state"] == "running", 20, every_s=0.2, what="the pod runs"
        )
        looks = {
            "runs watch": yard.background("runs", "watch", run),
            "pods watch": yard.background("pods", "watch", "--live"),
            "trigger": yard.background("dags", "trigger", "slow", "--wait"),
        }
        follower = yard.background("tasks", "logs", "--follow", run, "patient")
        seen = {name: look.stdout if name != "trigger" else look.stderr for name, look in looks.items()}
        for name, look in looks.items():
            stream = seen[name]
            assert stream is not None
            wanted = "patient running" if name == "trigger" else "slow-patient-"
            assert any(wanted in line for line in stream), name
            look.send_signal(signal.SIGINT)
        for look in looks.values():
            _, errors = look.communicate(timeout=20)
            assert (look.returncode, "Traceback" in errors) == (130, False)
        assert yard.json("tasks", "list", run)[0]["state"] == "running"
        pods = yard.json("pods", "list", "--live")
        assert "Running" in [pod["phase"] for pod in pods if pod["name"].startswith("slow-")]

        (yard.folder / "go").touch()
        words, errors = follower.communicate(timeout=30)
        assert (words, errors, follower.returncode) == ("waiting\ndone\n", "", 0)
        assert yard.call("runs", "watch", run).returncode == 0
        assert yard.json("runs", "show", run)["state"] == "success"


def _with(words: str, text: str) -> str:
    return text if words in text else ""


class TestStop:
    @pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
    def test_a_part_that_waits_can_be_stopped(self, tmp_path: Path, how: signal.Signals) -> None:
        """At once, and without a traceback."""
        log = tmp_path / "worker.log"
        process = parts.start(
            [PODYARD, "worker"], log=log, cwd=tmp_path, env={"PODYARD_BROKER__URL": "redis://127.0.0.1:1"}
        )
        eventually(lambda: "waiting for the broker" in log.read_text(), 20)
        assert parts.stop(process, how=how) in (130, -signal.SIGTERM)
        assert "Traceback" not in log.read_text()

    @pytest.mark.parametrize("part", ["local-cluster", "dispatcher", "worker", "scheduler"])
    def test_a_part_that_runs_can_be_stopped(self, yard: Yard, part: str) -> None:
        """Within seconds, with code 0. The last test of the module: it takes the parts down."""
        before = yard.log(part)
        assert parts.stop(yard.processes[part], timeout_s=15) == 0
        assert "Traceback" not in (yard.folder / f"{part}.log").read_text().removeprefix(before)


class TestWithoutScheduler:
    """After all parts were stopped."""

    def test_who_starts_a_run_is_told_at_once(self, yard: Yard) -> None:
        """And the answer stays one document for programs."""
        answer = yard.call("dags", "trigger", "good", "--run-id", "alone-1", "--output", "json")
        assert (answer.returncode, json.loads(answer.stdout)["run_id"]) == (0, "alone-1")
        assert answer.stderr == "no scheduler is running: the run goes on once `podyard scheduler` does\n"

    def test_so_is_who_waits_for_it(self, yard: Yard) -> None:
        """Instead of silence; what is told goes to stderr."""
        process = yard.background("dags", "trigger", "good", "--run-id", "alone-2", "--wait", "--output", "json")
        assert process.stderr is not None
        assert "no scheduler is running" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert (process.wait(20), process.communicate()[0]) == (130, "")

    def test_one_that_was_killed_is_missed_at_once(self, yard: Yard) -> None:
        """What it said of itself, and the lease that it holds, would last for a while."""
        yard.start("scheduler")
        eventually(lambda: yard.call("dags", "trigger", "good").stderr == "", 30, every_s=0.5, what="it is at work")
        yard.processes["scheduler"].kill()
        yard.processes["scheduler"].wait(10)
        assert "no scheduler is running" in yard.call("dags", "trigger", "good").stderr
        health = yard.call("health", "--expect", "scheduler,worker", "--output", "json")
        states = {one["process"].partition("@")[0]: one["state"] for one in json.loads(health.stdout)}
        assert (health.returncode, states) == (1, {"scheduler": "gone", "worker": "missing"})
