"""`podyard` without any part running: help, failures, settings, queues, database."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from routing.cli import program
from tests.terminal import PODYARD, environment, installed, on_a_terminal
from tests.terminal import inside as podyard

GROUPS = {
    "dags": ["list", "show", "trigger", "render"],
    "runs": ["list", "show", "watch", "cancel"],
    "tasks": ["list", "logs", "explain"],
    "pods": ["list", "watch", "logs", "cleanup"],
    "queues": ["list", "explain"],
    "config": ["show", "check"],
    "airflow": ["check"],
    "db": ["upgrade", "check"],
}
PLAIN = ["demo", "standalone", "scheduler", "worker", "dispatcher", "flower", "local-cluster", "health", "completion"]
"""Commands that are no groups."""


def refused(folder: Path, *words: str, code: int = 1, env: Mapping[str, str] | None = None) -> str:
    """The one line of a call that fails with this code."""
    answer = podyard(folder, *words, env=env)
    assert answer.returncode == code, answer
    assert answer.stderr.count("\n") == 1, answer.stderr
    assert answer.stderr.startswith("podyard: ")
    return answer.stderr.strip()


class TestHelp:
    def test_it_needs_click_alone(self, tmp_path: Path) -> None:
        """`podyard --help` answers at once: nothing heavy is imported for it."""
        code = (
            "import sys; from routing.cli import program\n"
            "try: program.run(['--help'])\n"
            "except SystemExit as end: assert end.code == 0\n"
            "heavy = {'pydantic', 'sqlalchemy', 'celery', 'kombu', 'kubernetes', 'rich', 'aiohttp', 'yaml'}\n"
            "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
        )
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        assert (answer.returncode, answer.stderr) == (0, "")
        assert "Everything on this machine" in answer.stdout

    def test_the_version_is_told(self, tmp_path: Path) -> None:
        """With the program's name."""
        assert re.fullmatch(r"podyard \d+\.\d+\.\d+\S*\n", installed(tmp_path, "--version").stdout)

    def test_without_a_command_the_help_is_shown(self, tmp_path: Path) -> None:
        """It is not a failure to ask what there is."""
        answer = installed(tmp_path)
        assert (answer.returncode, answer.stderr) == (0, "")
        assert answer.stdout == installed(tmp_path, "--help").stdout

    def test_every_command_teaches_by_an_example(self, tmp_path: Path) -> None:
        """One that can be typed as it stands, and no command is missing."""
        root = program.podyard
        context = program.click.Context(root, info_name="podyard")
        assert set(root.list_commands(context)) == {*GROUPS, *PLAIN}
        leaves = {name: root.get_command(context, name) for name in PLAIN}
        for name, expected in GROUPS.items():
            group = root.get_command(context, name)
            assert isinstance(group, program.click.Group)
            assert sorted(group.commands) == sorted(expected)
            leaves |= {f"{name} {leaf}": command for leaf, command in group.commands.items()}
        for name, command in leaves.items():
            assert command is not None
            assert "Example:  " in (command.help or ""), name
            assert f"podyard {name}" in (command.help or "").replace("--config /etc/podyard.toml ", ""), name

    def test_every_command_that_lists_or_shows_speaks_json_and_yaml(self) -> None:
        """So that programs need not read tables."""
        root = program.podyard
        context = program.click.Context(root, info_name="podyard")
        for name, leaf in [(name, leaf) for name, leaves in GROUPS.items() for leaf in leaves]:
            group = root.get_command(context, name)
            assert isinstance(group, program.click.Group)
            if leaf in ("list", "show", "explain", "check", "trigger"):
                assert "output" in {parameter.name for parameter in group.commands[leaf].params}, (name, leaf)


class TestFailures:
    @pytest.mark.parametrize(
        ("words", "code", "expected"),
        [
            (("nonsense",), 2, r"there is no command .nonsense.: .podyard --help. lists them"),
            (("web",), 2, r"there is no command .web.:"),
            (("queues", "explain"), 2, r"Missing argument 'QUEUE'.*podyard queues explain --help"),
            (("runs", "list", "--outptu", "json"), 2, r"--outptu.*--output"),
            (("runs", "list", "--output", "xml"), 2, r"'xml' is not one of"),
            (("runs", "list"), 1, r"no database at .*podyard\.db.*podyard standalone.*podyard db upgrade"),
            (("pods", "list"), 1, r"no database at"),
            (("db", "check"), 1, r"no database at"),
            (("--config", "no.toml", "queues", "list"), 1, r"no\.toml: the file that --config names does not exist"),
            (("queues", "list", "--config", "no.toml"), 1, r"no\.toml: the file that --config names does not exist"),
            (("worker", "--queues", "kubernetes"), 1, r"'kubernetes' is on the Kubernetes side.*podyard dispatcher"),
            (("dispatcher", "--queues", "mail"), 1, r"'mail' is on the Celery side.*\[queues\.\"mail\"\]"),
            (("scheduler",), 1, r"no database at"),
        ],
    )
    def test_each_is_one_line_that_says_what_to_do(
        self, tmp_path: Path, words: tuple[str, ...], code: int, expected: str
    ) -> None:
        """And the exit code tells wrong usage from other failures."""
        assert re.search(expected, refused(tmp_path, *words, code=code))

    def test_no_command_makes_an_empty_database_by_looking(self, tmp_path: Path) -> None:
        """A look must not leave a file that seems to be a record."""
        refused(tmp_path, "runs", "list")
        assert list(tmp_path.iterdir()) == []

    def test_debug_shows_the_traceback(self, tmp_path: Path) -> None:
        """Before or after the command."""
        for words in (("--debug", "runs", "list"), ("runs", "list", "--debug")):
            answer = installed(tmp_path, *words)
            assert answer.returncode == 1
            assert "Traceback" in answer.stderr
            assert answer.stderr.splitlines()[-1].startswith("podyard: there is no database")

    def test_a_database_that_is_none_is_told(self, tmp_path: Path) -> None:
        """Any file may be named by mistake."""
        (tmp_path / "x.db").write_bytes(b"this is no database" * 100)
        line = refused(tmp_path, "runs", "list", env={"PODYARD_DATABASE__URL": "sqlite:///x.db"})
        assert re.search(r"x\.db is not a database: set database\.url", line)

    def test_a_database_server_that_is_not_there_is_told_without_the_password(self, tmp_path: Path) -> None:
        """And in seconds."""
        url = "postgresql://me:hunter2@127.0.0.1:1/podyard"
        line = refused(tmp_path, "runs", "list", env={"PODYARD_DATABASE__URL": url})
        assert "127.0.0.1" in line
        assert "hunter2" not in line

    def test_a_home_folder_that_cannot_be_made_is_told(self, tmp_path: Path) -> None:
        """Where a file is in the way."""
        (tmp_path / "taken").touch()
        line = refused(tmp_path, "db", "upgrade", "--home", "taken/home")
        assert "taken/home cannot be made" in line

    def test_a_reader_that_goes_away_is_no_failure_to_talk_about(self, tmp_path: Path) -> None:
        """`podyard … | head -1` stays quiet."""
        (tmp_path / "podyard.toml").write_text(
            "".join(f'[queues.q{number}]\nside = "kubernetes"\n' for number in range(500))
        )
        process = subprocess.Popen(
            [PODYARD, "config", "show"],
            cwd=tmp_path,
            env=environment({"PYTHONUNBUFFERED": ""}),  # unbuffered, Python drops the rest without a word
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.read(1)
        process.stdout.close()
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (program.READER_GONE, b"")


class TestQueues:
    SETTINGS = '[queues."gpu-*"]\nside = "kubernetes"\nmax_pods = 7\n[queues."*-mail"]\nside = "celery"\n'

    def test_explain_says_which_rule_decides_and_why(self, tmp_path: Path) -> None:
        """With its line in the file, and the rules that lost."""
        (tmp_path / "podyard.toml").write_text(self.SETTINGS)
        lines = podyard(tmp_path, "queues", "explain", "gpu-mail").stdout.splitlines()
        assert lines[0] == "queue 'gpu-mail': side celery: its tasks run in the processes of Celery workers"
        assert lines[1].startswith("decided by the rule '*-mail' (podyard.toml:4): the longest pattern that matches")
        assert (
            lines[-1] == "also matches: the rule 'gpu-*' (side kubernetes); not asked: a shorter pattern (5 characters)"
        )

    def test_explain_knows_the_queue_of_an_old_airflow(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where no rule is written, its option is the one rule, as for the executor."""
        monkeypatch.setenv("AIRFLOW__CELERY_KUBERNETES_EXECUTOR__KUBERNETES_QUEUE", "pods")
        first = podyard(tmp_path, "queues", "explain", "pods").stdout.splitlines()[0]
        assert first == "queue 'pods': side kubernetes: its tasks run in pods, one for each task"
        assert "side celery" in podyard(tmp_path, "queues", "explain", "kubernetes").stdout

    def test_explain_speaks_json(self, tmp_path: Path) -> None:
        """The same for programs."""
        found = json.loads(podyard(tmp_path, "queues", "explain", "kubernetes", "--output", "json").stdout)
        assert (found["side"], found["rule"], found["source"]) == ("kubernetes", "kubernetes", "default")
        assert found["profile"]["max_pods"] == 100
        nothing = json.loads(podyard(tmp_path, "queues", "explain", "x", "-o", "json").stdout)
        assert (nothing["side"], nothing["rule"], nothing["profile"]) == ("celery", None, None)

    def test_list_is_in_the_order_of_asking(self, tmp_path: Path) -> None:
        """In all three formats."""
        (tmp_path / "podyard.toml").write_text(self.SETTINGS)
        listed = json.loads(podyard(tmp_path, "queues", "list", "--output", "json").stdout)
        assert [rule["queue"] for rule in listed] == ["kubernetes", "*-mail", "gpu-*"]
        assert yaml.safe_load(podyard(tmp_path, "queues", "list", "--output", "yaml").stdout) == listed
        table = podyard(tmp_path, "queues", "list").stdout.splitlines()
        assert table[0].split() == [
            "QUEUE",
            "SIDE",
            "RULE",
            "FROM",
            "CONSUMERS",
            "MESSAGES",
            "IN",
            "FLIGHT",
            "WAITING",
            "OLDEST",
        ]
        assert table[3].split()[:4] == ["gpu-*", "kubernetes", "gpu-*", "podyard.toml:1"]
        assert listed[2]["max_pods"] == 7

    def test_a_wrong_rule_is_told_with_its_line(self, tmp_path: Path) -> None:
        """Before anything is started."""
        (tmp_path / "podyard.toml").write_text('[queues.gpu]\nside = "kubernets"\n')
        line = refused(tmp_path, "worker")
        assert line.startswith("podyard: podyard.toml:2: queue 'gpu': side = 'kubernets': must be")

    def test_control_characters_of_an_argument_do_not_reach_the_terminal(self, tmp_path: Path) -> None:
        """Names come from DAG files of others."""
        answer = podyard(tmp_path, "queues", "explain", "a\x1b[31mb")
        assert "\x1b" not in answer.stdout


class TestConfig:
    def test_show_tells_the_source_of_every_value_and_hides_passwords(self, tmp_path: Path) -> None:
        """Long values are not cut when piped."""
        (tmp_path / "podyard.toml").write_text('[broker]\nurl = "redis://:hunter2@host/0"\n')
        answer = podyard(tmp_path, "config", "show", env={"PODYARD_WORKER__CONCURRENCY": "9"})
        assert "hunter2" not in answer.stdout
        rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in answer.stdout.splitlines()}
        assert rows["broker.url"] == ["redis://:•••@host/0", "podyard.toml:2"]
        assert rows["worker.concurrency"] == ["9", "environment variable PODYARD_WORKER__CONCURRENCY"]
        assert rows["database.url"][0] == f"sqlite:///{tmp_path}/.podyard/podyard.db"

    def test_check_lists_every_mistake(self, tmp_path: Path) -> None:
        """Not only the first."""
        (tmp_path / "podyard.toml").write_text("[worker]\nconcurrency = 0\n[brokr]\n")
        answer = podyard(tmp_path, "config", "check", "--output", "json")
        found = json.loads(answer.stdout)
        assert [one["message"].partition(":")[0] for one in found if one["check"] == "settings"] == ["podyard.toml"] * 2
        assert {one["result"] for one in found if one["check"] != "settings"} == {"not checked"}
        assert answer.returncode == 1

    def test_check_says_of_each_thing_whether_it_is_there(self, tmp_path: Path) -> None:
        """Nothing is: and each line says what to do."""
        environ = {
            "PODYARD_BROKER__URL": "redis://127.0.0.1:1/0",
            "PODYARD_RESULTS__URL": "redis://127.0.0.1:1/0",
            "PODYARD_KUBERNETES__KUBECONFIG": "no-kubeconfig",
        }
        answer = podyard(tmp_path, "config", "check", "--output", "json", env=environ)
        found = {one["check"]: (one["result"], one["message"]) for one in json.loads(answer.stdout)}
        assert answer.returncode == 1
        assert answer.stderr.count("\n") == 1
        assert {name for name, (result, _) in found.items() if result == "ok"} == {
            "settings",
            "templates",
            "logs folder",
        }
        assert "broker.url" in found["broker"][1]
        assert "results.url" in found["results"][1]
        assert "podyard db upgrade" in found["database"][1]
        assert "kubernetes.kubeconfig" in found["kubernetes"][1]
        assert "dags.folder" in found["dags folder"][1]

    @pytest.mark.parametrize(
        ("hook", "result", "words"),
        [
            ("site_hook:change", "ok", "site_hook:change"),
            ("site_hook:chnage", "wrong", "has no attribute 'chnage'"),
            ("site_hook:LIMIT", "wrong", "is not a function"),
            ("no_such:change", "wrong", "No module named 'no_such'"),
            ("broken_hook:change", "wrong", "RuntimeError: no licence"),
        ],
    )
    def test_check_imports_the_pod_mutation_hook(self, tmp_path: Path, hook: str, result: str, words: str) -> None:
        """As the dispatcher will at its first pod, whatever its module does when it is imported."""
        (tmp_path / "site_hook.py").write_text("LIMIT = 3\n\ndef change(pod):\n    return pod\n")
        (tmp_path / "broken_hook.py").write_text("raise RuntimeError('no licence')\n")
        environ = {
            "PODYARD_KUBERNETES__POD_MUTATION_HOOK": hook,
            "PODYARD_BROKER__URL": "redis://127.0.0.1:1/0",
            "PODYARD_KUBERNETES__KUBECONFIG": "no-kubeconfig",
            "PYTHONPATH": str(tmp_path),
        }
        answer = installed(tmp_path, "config", "check", "--output", "json", env=environ)
        found = {one["check"]: (one["result"], one["message"]) for one in json.loads(answer.stdout)}
        assert found["pod mutation hook"][0] == result
        assert words in found["pod mutation hook"][1]


class TestDatabase:
    def test_upgrade_makes_it_and_check_finds_it_right(self, tmp_path: Path) -> None:
        """Twice does no harm."""
        assert "revision none -> " in installed(tmp_path, "db", "upgrade").stdout
        assert "already" in podyard(tmp_path, "db", "upgrade").stdout
        assert podyard(tmp_path, "db", "check").stdout.startswith("ok: sqlite:///")
        assert json.loads(podyard(tmp_path, "db", "check", "-o", "json").stdout)["ok"] is True

    def test_an_empty_record_says_what_comes_next(self, tmp_path: Path) -> None:
        """On stderr; a program gets an empty list."""
        podyard(tmp_path, "db", "upgrade")
        answer = podyard(tmp_path, "runs", "list")
        assert (answer.returncode, answer.stdout) == (0, "")
        assert "podyard dags trigger" in answer.stderr
        assert podyard(tmp_path, "runs", "list", "-o", "json").stdout == "[]\n"
        assert "podyard dags trigger" in refused(tmp_path, "tasks", "explain", "x")
        assert "podyard scheduler" in refused(tmp_path, "dags", "trigger", "x")

    @pytest.mark.parametrize("conf", ["[1]", "{", "@missing.json", "3"])
    def test_parameters_that_are_no_object_are_refused(self, tmp_path: Path, conf: str) -> None:
        """Before anything else is looked at."""
        assert "--conf" in refused(tmp_path, "dags", "trigger", "x", "--conf", conf, code=2)


class TestTerminal:
    def test_colours_are_for_terminals_and_not_with_no_color(self, tmp_path: Path) -> None:
        """Neither are they in a pipe."""
        assert "\x1b[" in on_a_terminal(tmp_path, "queues", "list")
        assert "\x1b[1;3" not in on_a_terminal(tmp_path, "queues", "list", env={"NO_COLOR": "1"})
        assert "\x1b" not in podyard(tmp_path, "queues", "list").stdout

    @pytest.mark.parametrize("columns", [60, 80])
    def test_ids_are_whole_on_a_narrow_terminal(self, tmp_path: Path, columns: int) -> None:
        """Every character of a name is there, on one line where it fits; of none a line is cut."""
        name = "a-very-long-queue-name-" * 2
        (tmp_path / "podyard.toml").write_text(f'[queues.{name}]\nside = "kubernetes"\n')
        shown = on_a_terminal(tmp_path, "queues", "list", env={"NO_COLOR": "1", "COLUMNS": str(columns)})
        lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
        assert name in lines
        assert any(line.startswith("  side kubernetes  rule ") for line in lines)

    def test_a_pipe_gets_the_table_whole(self, tmp_path: Path) -> None:
        """Whatever COLUMNS says: a line for each row, so that `grep` and `awk` find it."""
        name = "a-very-long-queue-name-" * 8
        (tmp_path / "podyard.toml").write_text(f'[queues.{name}]\nside = "kubernetes"\n')
        (line,) = [line for line in podyard(tmp_path, "queues", "list").stdout.splitlines() if line.startswith(name)]
        assert line.split()[:2] == [name, "kubernetes"]
