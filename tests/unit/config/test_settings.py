"""The settings: where values come from, and what is said about wrong ones."""

import re
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from dispatcher import constraints, policy
from dispatcher.options import QueueProfile
from dispatcher.settings import sections as shared
from routing.config import docs, sections, settings, toml_lines
from routing.config.settings import Settings, SettingsError
from routing.worker import celery_app


def load(folder: Path, text: str | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings for a `podyard.toml` with this text."""
    if text is not None:
        (folder / "podyard.toml").write_text(text)
    return settings.load(environ=environ or {}, cwd=folder)


def problems(folder: Path, text: str | None = None, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(folder, text, environ)
    return caught.value.problems


class TestOrder:
    def test_without_anything_there_are_defaults(self, tmp_path: Path) -> None:
        """Everything embedded lives in ./.podyard."""
        found = load(tmp_path)
        assert found.deployment == "default"
        assert found.home == tmp_path / ".podyard"
        assert found.broker.url == found.results.url == "redis://127.0.0.1:6379/0"
        assert found.database.url == f"sqlite:///{tmp_path}/.podyard/podyard.db"
        assert (found.dags.folder, found.logs.folder) == (tmp_path / "dags", tmp_path / ".podyard/logs")
        assert found.source == {}
        assert found.router.route("kubernetes").side == "kubernetes"

    def test_file_beats_embedded_file_beats_default_and_environment_beats_all(self, tmp_path: Path) -> None:
        """Each value remembers its source."""
        (tmp_path / ".podyard").mkdir()
        (tmp_path / ".podyard/embedded.toml").write_text(
            '[broker]\nurl = "redis://embedded"\n[worker]\nconcurrency = 7\n[flower]\nport = 1\n'
        )
        found = load(
            tmp_path,
            "[worker]\nconcurrency = 2\n[scheduler]\nsweep_s = 1\n[flower]\nport = 2\n",
            {"PODYARD_FLOWER__PORT": "3"},
        )
        assert (found.broker.url, found.worker.concurrency, found.flower.port) == ("redis://embedded", 2, 3)
        assert found.source == {
            "broker.url": ".podyard/embedded.toml:2",
            "worker.concurrency": "podyard.toml:2",
            "scheduler.sweep_s": "podyard.toml:4",
            "flower.port": "environment variable PODYARD_FLOWER__PORT",
        }

    def test_the_option_beats_the_variable_beats_the_folder(self, tmp_path: Path) -> None:
        """Only one file is read."""
        for name in ("option", "variable", "podyard"):
            (tmp_path / f"{name}.toml").write_text(f'deployment = "{name}"\n')
        environ = {"PODYARD_CONFIG": "variable.toml"}
        assert settings.load(tmp_path / "option.toml", environ=environ, cwd=tmp_path).deployment == "option"
        assert settings.load(environ=environ, cwd=tmp_path).deployment == "variable"
        assert settings.load(environ={}, cwd=tmp_path).deployment == "podyard"

    def test_home_moves_what_lives_there(self, tmp_path: Path) -> None:
        """Database, logs and the embedded file are looked for in the home folder that was named."""
        (tmp_path / "h").mkdir()
        (tmp_path / "h/embedded.toml").write_text("[worker]\nconcurrency = 9\n")
        found = load(tmp_path, environ={"PODYARD_HOME": "h"})
        assert (found.home, found.logs.folder, found.worker.concurrency) == (tmp_path / "h", tmp_path / "h/logs", 9)
        assert found.database.url == f"sqlite:///{tmp_path}/h/podyard.db"

    def test_paths_in_a_file_count_from_its_folder(self, tmp_path: Path) -> None:
        """A settings file can be moved with what belongs to it."""
        folder = tmp_path / "etc"
        folder.mkdir()
        (folder / "pod.yaml").write_text(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: base, image: i}]}\n"
        )
        (folder / "p.toml").write_text(
            '[dags]\nfolder = "mine"\n[database]\nurl = "sqlite:///my.db"\n'
            '[queues.kubernetes]\ntemplate = "./pod.yaml"\n'
        )
        found = settings.load(folder / "p.toml", environ={"PODYARD_LOGS__FOLDER": "logs"}, cwd=tmp_path)
        assert found.dags.folder == folder / "mine"
        assert found.database.url == f"sqlite:///{folder}/my.db"
        assert found.logs.folder == tmp_path / "logs"
        assert found.queues["kubernetes"].profile.template == str(folder / "pod.yaml")

    @pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
    def test_a_plain_postgres_url_gets_our_driver(self, tmp_path: Path, scheme: str) -> None:
        """People write postgres:// and mean it."""
        found = load(tmp_path, environ={"PODYARD_DATABASE__URL": f"{scheme}://u@h/d"})
        assert found.database.url == "postgresql+psycopg://u@h/d"


class TestEnvironment:
    def test_values_are_read_by_the_type_of_their_field(self, tmp_path: Path) -> None:
        """Numbers, booleans, paths and texts."""
        found = load(
            tmp_path,
            environ={
                "PODYARD_WORKER__CONCURRENCY": "3",
                "PODYARD_SCHEDULER__SWEEP_S": "0.5",
                "PODYARD_KUBERNETES__VERIFY_SSL": "false",
                "PODYARD_KUBERNETES__KUBECONFIG": "~/k",
                "PODYARD_DEPLOYMENT": "2026",
            },
        )
        assert (found.worker.concurrency, found.scheduler.sweep_s) == (3, 0.5)
        assert (found.kubernetes.verify_ssl, found.kubernetes.kubeconfig) == (False, Path.home() / "k")
        assert found.deployment == "2026"

    def test_rules_of_queues_can_be_set_too(self, tmp_path: Path) -> None:
        """A known queue is found by its spelling; an unknown one is made in small letters."""
        found = load(
            tmp_path,
            '[queues."GPU-*"]\nside = "kubernetes"\n',
            {
                "PODYARD_QUEUES__KUBERNETES__MAX_PODS": "5",
                "PODYARD_QUEUES__GPU____ENV": '{"A": "b"}',
                "PODYARD_QUEUES__MAIL__SIDE": "celery",
            },
        )
        assert found.queues["kubernetes"].profile.max_pods == 5
        assert found.queues["GPU-*"].profile.env == {"A": "b"}
        assert found.queues["mail"].side == "celery"

    def test_an_empty_variable_is_not_set(self, tmp_path: Path) -> None:
        """Compose files pass `${VALUE:-}` on."""
        assert load(tmp_path, environ={"PODYARD_WORKER__CONCURRENCY": "", "PODYARD_HOME": ""}).worker.concurrency == 4

    def test_what_kubernetes_sets_for_a_service_of_our_name_is_left_alone(self, tmp_path: Path) -> None:
        """PODYARD_PORT is no setting, and no mistake of anybody."""
        environ = {"PODYARD_PORT": "tcp://10.0.0.1:80", "PODYARD_SERVICE_HOST": "10.0.0.1", "PODYARD_APP": "x:y"}
        assert load(tmp_path, environ=environ).source == {}

    @pytest.mark.parametrize(
        ("variable", "nearest"),
        [
            ("PODYARD_BROKER_URL", "PODYARD_BROKER__URL"),
            ("PODYARD_DATABASE_URL", "PODYARD_DATABASE__URL"),
            ("PODYARD_DEPLOYMNET", "PODYARD_DEPLOYMENT"),
            ("PODYARD_QUEUES_KUBERNETES_MAX_PODS", "PODYARD_QUEUES__KUBERNETES__MAX_PODS"),
            ("PODYARD_QUEUES_GPU_MAX_PODS", "PODYARD_QUEUES__GPU__MAX_PODS"),
            ("PODYARD_FLOWER_PORT", "PODYARD_FLOWER__PORT"),
            ("PODYARD_FOO", "PODYARD_HOME"),
        ],
    )
    def test_a_variable_that_means_nothing_is_reported_with_the_nearest_that_exists(
        self, tmp_path: Path, variable: str, nearest: str
    ) -> None:
        """One underscore is the usual mistake; nothing is ignored in silence."""
        (problem,) = problems(tmp_path, '[queues.gpu]\nside = "kubernetes"\n', {variable: "5"})
        assert problem.startswith(
            f"environment variable {variable}: no setting has this name; the nearest is {nearest};"
        )

    @pytest.mark.parametrize(
        "variable",
        ["PODYARD_PORT_80_TCP_ADDR", "PODYARD_FLOWER_SERVICE_PORT_HTTP", "PODYARD_FLOWER_PORT", "PODYARD_MESSAGE_FILE"],
    )
    def test_what_others_set_is_left_alone(self, tmp_path: Path, variable: str) -> None:
        """Kubernetes for a Service called podyard or podyard-flower, and the dispatcher for its pods."""
        assert load(tmp_path, environ={variable: "tcp://10.0.0.1:5555"}).source == {}

    def test_an_unknown_section_or_key_is_told(self, tmp_path: Path) -> None:
        """With the nearest that exists."""
        environ = {"PODYARD_BROKR__URL": "x", "PODYARD_BROKER__ULR": "x", "PODYARD_QUEUES__GPU__MAXPODS": "3"}
        found = problems(tmp_path, environ=environ)
        assert [re.search('did you mean "(.*)"', line)[1] for line in found] == ["broker", "url", "max_pods"]  # type: ignore[index]
        assert all(line.startswith("environment variable PODYARD_") for line in found)


class TestMistakes:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("\n[brokr]\nurl = 1", 'podyard.toml:2: brokr: unknown section or key; did you mean "broker"?'),
            ('[broker]\nulr = "x"', 'podyard.toml:2: broker.ulr: unknown key; did you mean "url"?'),
            (
                "[worker]\n\nconcurrency = 0",
                "podyard.toml:3: worker.concurrency = 0: must be an integer of at least 1",
            ),
            ('worker = {concurrency = "4"}', "podyard.toml:1: worker.concurrency = '4': must be an integer"),
            ("[worker]\nconcurrency = true", "podyard.toml:2: worker.concurrency = True: must be an integer"),
            ("[scheduler]\nsweep_s = nan", "podyard.toml:2: scheduler.sweep_s = nan: must be a number of seconds"),
            ("broker = 3", "podyard.toml:1: broker = 3: must be a table, [broker]"),
            ('[broker]\nurl = "localhost:6379"', "podyard.toml:2: broker.url = 'localhost:6379': must be a URL of a"),
            ('[results]\nurl = "amqp://h"', "podyard.toml:2: results.url = 'amqp://h': must be a URL of a Redis"),
            ('[database]\nurl = "mysql://h/d"', "podyard.toml:2: database.url = 'mysql://h/d': must be a URL such as"),
            ('[database]\nurl = "sqlite://"', "podyard.toml:2: database.url = 'sqlite://': must be a URL such as"),
            ('deployment = "a b"', "podyard.toml:1: deployment = 'a b': must be 1 to 63 letters"),
            ('[dags]\nfolder = ""', "podyard.toml:2: dags.folder = '': must be the path of a folder"),
            ("queues = 3", "podyard.toml:1: queues = 3: must be a table of rules"),
            ('[queues.x]\nside = "k"', "podyard.toml:2: queue 'x': side = 'k': must be"),
            ("[queues]\nx.max_pods = 3", "podyard.toml:2: queue 'x': has no side"),
            ('[queues]\nx = {side = "celery", y = 1}', "podyard.toml:2: queue 'x': y = 1: unknown key"),
            (
                '# a\n[queues."a*"]\nside = "celery"\n[queues."a**"]\nside = "celery"',
                "podyard.toml:2: queue 'a*': this rule can never match: 'a**' is asked first",
            ),
            (
                '[queues.x]\nside = "kubernetes"\nenv = """\n[queues.y]\n"""\nmax_pods = 0',
                "podyard.toml:6: queue 'x': max_pods = 0",
            ),
        ],
    )
    def test_each_names_file_line_key_value_and_what_is_allowed(self, tmp_path: Path, text: str, expected: str) -> None:
        """One line each."""
        found = problems(tmp_path, text)
        assert [line for line in found if line.startswith(expected)], found
        assert all("\n" not in line for line in found)

    def test_a_wrong_variable_is_named(self, tmp_path: Path) -> None:
        """It may stand in a file that nobody thinks of."""
        (problem,) = problems(tmp_path, environ={"PODYARD_WORKER__CONCURRENCY": "four"})
        expected = "worker.concurrency = 'four': must be an integer of at least 1"
        assert problem == f"environment variable PODYARD_WORKER__CONCURRENCY: {expected}"

    def test_text_that_is_no_toml_is_told_with_its_line(self, tmp_path: Path) -> None:
        """Also where the text ends too early."""
        assert problems(tmp_path, "a = 1\nb = = 2\n")[0].startswith("podyard.toml:2: this is not TOML")
        assert problems(tmp_path, 'a = 1\nb = """')[0].startswith("podyard.toml:2: this is not TOML")

    def test_bytes_that_are_no_utf8_are_told_with_their_line(self, tmp_path: Path) -> None:
        """TOML is UTF-8."""
        (tmp_path / "podyard.toml").write_bytes(b"a = 1\nb = '\xff'\n")
        assert problems(tmp_path)[0].startswith("podyard.toml:2: this is not UTF-8")

    def test_a_user_who_does_not_exist_is_part_of_a_path_that_does_not_exist(self, tmp_path: Path) -> None:
        """Not a crash."""
        assert (
            load(tmp_path, '[dags]\nfolder = "~nobody-of-that-name/x"').dags.folder
            == tmp_path / "~nobody-of-that-name/x"
        )

    def test_a_byte_order_mark_does_no_harm(self, tmp_path: Path) -> None:
        """Some editors write one."""
        (tmp_path / "podyard.toml").write_bytes(b'\xef\xbb\xbfdeployment = "x"\n')
        assert load(tmp_path).deployment == "x"

    def test_a_named_file_that_is_missing_or_a_folder_is_told(self, tmp_path: Path) -> None:
        """With whoever named it."""
        with pytest.raises(SettingsError, match=r"^no\.toml: the file that --config names does not exist"):
            settings.load(Path("no.toml"), environ={}, cwd=tmp_path)
        with pytest.raises(SettingsError, match=r"^no\.toml: the file that PODYARD_CONFIG names does not exist"):
            settings.load(environ={"PODYARD_CONFIG": "no.toml"}, cwd=tmp_path)
        with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
            settings.load(tmp_path, environ={}, cwd=tmp_path)

    def test_all_are_told_at_once(self, tmp_path: Path) -> None:
        """The text is the first one and how many more there are."""
        with pytest.raises(SettingsError, match="and 2 more") as caught:
            load(tmp_path, "[worker]\nconcurrency = 0\n[flower]\nport = -1\nprot = 3\n")
        assert len(caught.value.problems) == 3


class TestSecrets:
    TEXT = """
[broker]
url = "redis://user:hunter2@host:6379/0"
[database]
url = "postgresql://u:hunter2@h/d?sslpassword=hunter2"
[flower]
basic_auth = "me:hunter2"
[queues.kubernetes]
env = {API_TOKEN = "hunter2", LANG = "C", WAREHOUSE = "postgresql://etl:hunter2@db/x", DSN2 = "host=h password=hunter2"}
"""

    def test_no_password_is_shown(self, tmp_path: Path) -> None:
        """Neither by `config show` nor by repr; what is no secret is."""
        found = load(tmp_path, self.TEXT)
        assert found.broker.url == "redis://user:hunter2@host:6379/0"
        shown = {one.key: one.value for one in found.redacted()}
        assert "hunter2" not in repr(shown)
        assert "hunter2" not in repr(found)
        assert shown["broker.url"] == "redis://user:•••@host:6379/0"
        assert shown["flower.basic_auth"] == "me:•••"
        assert shown["queues.kubernetes.env"] == {
            "API_TOKEN": "•••",
            "LANG": "C",
            "WAREHOUSE": "postgresql://etl:•••@db/x",
            "DSN2": "•••",
        }

    @pytest.mark.parametrize("url", ["redis//:hunter2@h", "http://:hunter2@h/", ":hunter2@h"])
    def test_no_password_is_in_an_error(self, tmp_path: Path, url: str) -> None:
        """A typing mistake in the URL does not print it."""
        assert "hunter2" not in problems(tmp_path, f'[broker]\nurl = "{url}"\n')[0]

    @pytest.mark.parametrize(
        "text",
        [
            'broker = "redis://:hunter2@h"',
            '[queues.kubernetes]\nenv = {PASSWORD = "hunter2", A = 1}',
            '[queues.kubernetes]\nenv = {WAREHOUSE = "postgresql://etl:hunter2@db/x", A = 1}',
            '[queues.kubernetes]\nenv = "PASSWORD=hunter2"',
            '[queues.kubernetes]\npassword = "hunter2"',
            '[queues]\nkubernetes = "password=hunter2"',
            '[kubernetes]\nmax_pods = "redis://:hunter2@h"',
            '[flower]\nbasic_auth = ["hunter2"]',
            'deployment = "host=db password=hunter2"',
        ],
    )
    def test_no_secret_in_a_wrong_place_is_shown(self, tmp_path: Path, text: str) -> None:
        """Neither a URL where a table should be nor the neighbour of a wrong variable."""
        assert "hunter2" not in problems(tmp_path, text)[0]


class TestShown:
    def test_every_setting_is_shown_with_its_source(self, tmp_path: Path) -> None:
        """Queues are spelled as TOML spells them."""
        shown = {one.key: (one.value, one.source) for one in load(tmp_path, TestSecrets.TEXT).redacted()}
        assert shown["worker.concurrency"] == (4, "default")
        assert shown["flower.basic_auth"][1] == "podyard.toml:7"
        assert shown["queues.kubernetes.max_pods"] == (100, "default")

    def test_the_documentation_has_every_key(self) -> None:
        """Its tables are made from the tables of the settings: regenerate them by `python -m routing.config.docs`."""
        text = docs.PAGE.read_text()
        assert text == docs.page(text)
        keys = {key for key, _, _ in settings.iter_help()}
        rules = {f"queues.NAME.{name}" for name in constraints.keys_of(QueueProfile)}
        assert set(re.findall(r"^\| `([a-zA-Z_.]+)` \|", text, re.MULTILINE)) >= keys | rules

    def test_a_new_key_is_one_edit(self, tmp_path: Path) -> None:
        """A field more in the table of a queue's keys, and one more of a section: the file, the environment, a Celery
        application, errors, `config show` and the docs know them."""
        (tmp_path / "podyard.toml").write_text(
            '[queues.kubernetes]\ncolour = "red"\n[queues.gpu]\nside = "kubernetes"\ncolour = 3\n'
            "[kubernetes]\nspeed = 0\n"
        )
        program = textwrap.dedent("""
            import importlib.util, sys
            from pathlib import Path

            def edited(name, after, line):
                spec = importlib.util.find_spec(name)
                before, found, rest = Path(spec.origin).read_text().partition(after)
                assert found
                module = importlib.util.module_from_spec(spec)
                sys.modules[name] = module
                exec(compile(before + found + line + rest, spec.origin, "exec"), module.__dict__)
                package, _, attribute = name.rpartition(".")
                setattr(sys.modules[package], attribute, module)

            import dispatcher.settings
            edited("dispatcher.options", "class QueueProfile:\\n",
                   "    colour: Annotated[constraints.Text | None, about('A colour')] = None\\n")
            edited("dispatcher.settings.sections", "class Kubernetes:\\n",
                   "    speed: Annotated[constraints.Count, about('A speed')] = 7\\n")

            from celery import Celery
            from dispatcher.worker import app_config
            from routing.config import docs, settings
            try:
                settings.load(environ={})
            except settings.SettingsError as error:
                print(*error.problems, sep="\\n")
            environ = {"PODYARD_QUEUES__GPU__COLOUR": "blue", "PODYARD_KUBERNETES__SPEED": "9"}
            found = settings.load(environ=environ)
            print(found.router.route("kubernetes").profile.colour, found.router.route("gpu").profile.colour)
            print([one.value for one in found.redacted() if one.key in ("queues.gpu.colour", "kubernetes.speed")])
            app = Celery("x", set_as_current=False)
            app.conf.podyard = {"app": "a:b", "speed": 5, "queues": {"gpu": {"colour": "green"}}}
            print(app_config.from_app(app, environ={}).profile_for("gpu").colour)
            print(app_config.from_app(app, environ=environ).profile_for("gpu").colour)
            text = docs.page(docs.PAGE.read_text())
            print("| `queues.NAME.colour` | A colour | a non-empty string | not set |" in text)
            print("| `kubernetes.speed` | A speed | an integer of at least 1 | `7` |" in text)
        """)
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.stdout.splitlines(), done.stderr) == (
            [
                "podyard.toml:7: kubernetes.speed = 0: must be an integer of at least 1",
                "podyard.toml:5: queue 'gpu': colour = 3: must be a non-empty string",
                "red blue",
                "[9, 'blue']",
                "green",
                "blue",
                "True",
                "True",
            ],
            "",
        )

    def test_every_key_says_what_is_allowed_and_what_it_does(self) -> None:
        """An error message ends with the first."""
        for table in (*sections.TABLES.values(), QueueProfile):
            for name, key in constraints.keys_of(table).items():
                assert key.allowed, (table, name)
                assert key.description, (table, name)

    def test_what_an_application_ignores_is_what_only_an_installation_has(self) -> None:
        """A variable of an installation is no mistake of an application, and none of an application is ignored."""
        tables = {"": shared.Top, **shared.SECTIONS}
        more = {
            f"{section}.{name}" if section else name
            for section, table in sections.TABLES.items()
            for name in constraints.keys_of(table)
            if section not in tables or name not in constraints.keys_of(tables[section])
        }
        assert {one for one in more if one.partition(".")[0] in tables or "." not in one} | {
            one.partition(".")[0] for one in more if "." in one and one.partition(".")[0] not in tables
        } == set(shared.OF_AN_INSTALLATION)


class TestLines:
    def test_keys_and_headers_are_found_where_they_stand(self) -> None:
        """Quoted, dotted, after values over several lines, with Windows line ends."""
        rows = [
            "# c",
            "a = [",
            " 1,",
            "]",
            '[b."c.d" . e] # x',
            'f.g = """',
            "[h]",
            '"""',
            "'i j' = {k = 1}",
            "[[l]]",
            "m=1",
        ]
        assert toml_lines.find_lines("\r\n".join(rows)) == {
            ("a",): 2,
            ("b",): 5,
            ("b", "c.d"): 5,
            ("b", "c.d", "e"): 5,
            ("b", "c.d", "e", "f"): 6,
            ("b", "c.d", "e", "f", "g"): 6,
            ("b", "c.d", "e", "i j"): 9,
            ("l",): 10,
            ("l", "m"): 11,
        }


class TestLimits:
    def test_they_come_from_the_file_and_from_the_environment(self, tmp_path: Path) -> None:
        """A table is JSON there; names that look secret are none here."""
        found = load(
            tmp_path, "[kubernetes]\nmax_pods = 9\nmax_pods_by_namespace = { keycloak = 5 }\ncreate_rate = 2.5\n"
        )
        assert (found.kubernetes.max_pods, found.kubernetes.create_rate) == (9, 2.5)
        assert {one.key: one.value for one in found.redacted()}["kubernetes.max_pods_by_namespace"] == {"keycloak": 5}
        variable = {"PODYARD_KUBERNETES__MAX_PODS_BY_NAMESPACE": '{"a": 3}'}
        assert load(tmp_path, "", environ=variable).kubernetes.max_pods_by_namespace == {"a": 3}

    @pytest.mark.parametrize("table", ["{ a = 0 }", "{ A = 1 }", '{ a = "1" }', "7"])
    def test_what_is_no_limit_is_told(self, tmp_path: Path, table: str) -> None:
        """With what is allowed."""
        told = problems(tmp_path, f"[kubernetes]\nmax_pods_by_namespace = {table}\n")
        assert "kubernetes.max_pods_by_namespace" in told[0]
        assert "must be a table of namespaces" in told[0]


class TestPolicy:
    def test_lists_come_from_the_file_and_from_the_environment(self, tmp_path: Path) -> None:
        """In the environment commas separate."""
        text = '[policy]\nimages = ["registry.example.com/*"]\nhost_network = true\n'
        environ = {"PODYARD_POLICY__NAMESPACES": "jobs, team-*"}
        found = load(tmp_path, text, environ).policy
        assert (found.images, found.namespaces, found.host_network) == (
            ("registry.example.com/*",),
            ("jobs", "team-*"),
            True,
        )

    def test_the_default_is_the_dispatchers(self, tmp_path: Path) -> None:
        """The settings and the value that they fill cannot drift apart."""
        assert celery_app.dispatcher_options(load(tmp_path, "")).policy == policy.Policy()

    def test_a_string_where_a_list_belongs_is_reported(self, tmp_path: Path) -> None:
        """With the line and the key."""
        [problem] = problems(tmp_path, '[policy]\nimages = "x"\n')
        assert problem.startswith("podyard.toml:2: policy.images = 'x': must be a list of strings")
