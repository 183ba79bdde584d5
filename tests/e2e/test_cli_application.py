"""The commands of a user who has a Celery application and no DAGs: a folder with an app, a broker, a cluster."""

import base64
import html
import json
import os
import shutil
import sqlite3
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from routing.standalone import layout
from tests import parts
from tests.terminal import PODYARD, Answer, environment, inside

SHOP = Path(__file__).parents[2] / "docs" / "examples" / "shop" / "shop.py"
SAYS_ITSELF = """
import os
from celery import Celery

app = Celery("shop", broker=os.environ["SHOP_BROKER"], backend=os.environ["SHOP_BROKER"], set_as_current=False)
app.conf.podyard = {
    "deployment": "shop-two",
    "database_url": "sqlite:///two.db",
    "health_folder": "health-of-two",
    "queues": {"kubernetes": {"max_pods": 3}, "gpu-*": {"template": "gpu"}},
}
"""


@dataclass(kw_only=True)
class Folder:
    """The user's folder, and the environment of the user's shell."""

    path: Path
    env: dict[str, str]
    client: Celery

    def call(self, *words: str, app: str = "shop:app", **env: str) -> Answer:
        return inside(self.path, *words, "--app", app, env={**self.env, **env})

    def json(self, *words: str, app: str = "shop:app", **env: str) -> Any:
        answer = self.call(*words, "--output", "json", app=app, **env)
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout)

    def refused(self, *words: str, app: str = "shop:app", **env: str) -> str:
        answer = self.call(*words, app=app, **env)
        assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (1, "", 1), answer
        return answer.stderr


RECORD = {"PODYARD_DATABASE__URL": "sqlite:///shop.db"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, local_cluster_server: parts.LocalCluster) -> Iterator[Folder]:
    """A dispatcher with a record of pods runs here, and has run one task well, one badly and one of an own id."""
    path = tmp_path_factory.mktemp("shop")
    shutil.copy(SHOP, path)
    (path / "shop_two.py").write_text(SAYS_ITSELF)
    valkey = parts.Valkey.start(path / "valkey")
    url = valkey.fresh().url
    env = {
        "SHOP_BROKER": url,
        "SHOP_RESULTS": url,
        "PODYARD_KUBERNETES__KUBECONFIG": str(local_cluster_server.kubeconfig),
        "PODYARD_QUEUES__KUBERNETES__ENV": json.dumps({"PYTHONPATH": f"{path}{os.pathsep}{Path.cwd()}"}),
    }
    client = Celery("client", broker=url, backend=url, set_as_current=False)
    found = Folder(path=path, env=env, client=client)
    before = set(sys.modules)
    assert found.call("db", "upgrade", **RECORD).returncode == 0
    process = parts.start(
        [PODYARD, "dispatcher", "--app", "shop:app"],
        log=path / "dispatcher.log",
        cwd=path,
        env={**environment(env), **RECORD},
    )
    try:
        sent = [
            client.send_task("shop.render_invoice", args=(7,), queue="kubernetes", task_id="order-17"),
            client.send_task("shop.train_prices", args=("many",), queue="kubernetes", task_id="bad"),
        ]
        client.send_task("shop.price", args=("coffee", 2), queue="shop")
        parts.eventually(lambda: all(one.ready() for one in sent), 60, what="both tasks end")
        yield found
    finally:
        parts.stop(process)
        valkey.stop()
        for name in set(sys.modules) - before & {"shop", "shop_two"}:
            del sys.modules[name]


def test_config_check_asks_for_nothing_of_dags(folder: Folder) -> None:
    """No folder of DAGs, and no database where none is said."""
    found = {one["check"]: (one["result"], one["message"]) for one in folder.json("config", "check")}
    assert {result for result, _ in found.values()} == {"ok"}
    assert "dags folder" not in found
    assert "deployment shop" in found["settings"][1]
    assert found["database"][1].startswith("none: `podyard pods` and `podyard tasks` need one")
    without = inside(folder.path, "config", "check", env=folder.env)
    assert "a Celery application without DAGs is checked by --app MODULE:APP" in without.stderr


def test_config_check_names_a_server_that_takes_nothing(folder: Folder, own_valkey: parts.Valkey) -> None:
    """It answers, and is wrong all the same."""
    with own_valkey.fresh().client() as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
    full = own_valkey.address.url(0)
    (folder.path / "podyard.toml").write_text(f'[broker]\nurl = "{full}"\n[results]\nurl = "{full}"\n')
    try:
        answer = inside(folder.path, "config", "check", "-o", "json", env=folder.env)
    finally:
        (folder.path / "podyard.toml").unlink()
    found = {one["check"]: one for one in json.loads(answer.stdout)}
    assert [found[name]["result"] for name in ("broker", "results")] == ["wrong", "wrong"]
    assert "it refuses writes" in found["broker"]["message"]


def test_config_show_shows_what_a_dispatcher_goes_by(folder: Folder) -> None:
    """And where the application said it."""
    found = {one["key"]: one for one in folder.json("config", "show", app="shop_two:app")}
    assert found["deployment"]["value"] == "shop-two"
    assert found["queues.kubernetes.max_pods"]["source"] == "app.conf.podyard['queues']['kubernetes']['max_pods']"
    assert not {key for key in found if key.partition(".")[0] in ("dags", "scheduler", "worker", "home")}


def test_without_a_record_each_command_says_what_it_needs(folder: Folder) -> None:
    """In one line; what the result backend knows of a task is told with it."""
    for words in (("pods", "list"), ("pods", "logs", "x"), ("tasks", "explain", "bad"), ("db", "upgrade")):
        line = folder.refused(*words)
        assert "set database_url in app.conf.podyard, or PODYARD_DATABASE__URL" in line, words
    assert "its result backend says FAILURE (TypeError: " in folder.refused("tasks", "explain", "bad")
    assert "its result backend knows no such task" in folder.refused("tasks", "explain", "never-sent")


def test_without_a_result_backend_either(folder: Folder) -> None:
    """Celery's default."""
    (folder.path / "bare.py").write_text("from celery import Celery\napp = Celery('bare', set_as_current=False)\n")
    line = folder.refused("tasks", "explain", "bad", app="bare:app")
    assert "the application has no result backend either" in line


def test_pods_list_shows_the_pods_of_the_application(folder: Folder) -> None:
    """By `--app`, or by PODYARD_DEPLOYMENT; another deployment is told where there are some."""
    by_app = folder.json("pods", "list", **RECORD)
    assert {one["task"] for one in by_app} == {"shop.render_invoice", "shop.train_prices"}
    env = {**folder.env, **RECORD}
    named = inside(folder.path, "pods", "list", "-o", "json", env={**env, "PODYARD_DEPLOYMENT": "shop"})
    assert {one["name"] for one in json.loads(named.stdout)} == {one["name"] for one in by_app}
    assert "this record has pods of 'shop'" in inside(folder.path, "pods", "list", env=env).stderr


def test_tasks_explain_says_why_one_failed(folder: Folder) -> None:
    """From the table of pods, with the application named or not; the id may be any text."""
    told = folder.call("tasks", "explain", "bad", **RECORD).stdout
    assert told.startswith("shop.train_prices (bad), deployment shop: Failed")
    assert "TypeError: 'str' object cannot be interpreted as an integer" in told
    assert "whose: the task's author's" in told
    story = [line.partition(":")[0] for line in told.splitlines()[1:5]]
    assert story == ["what happened", "why", "whose", "what to do"]
    assert "podyard tasks logs --app shop:app bad" in told
    facts = folder.json("tasks", "explain", "order-17", **RECORD)
    assert (facts["task"], facts["launches"][0]["phase"]) == ("shop.render_invoice", "Succeeded")
    unnamed = inside(folder.path, "tasks", "explain", "order-17", env={**folder.env, **RECORD})
    assert unnamed.stdout.startswith("shop.render_invoice (order-17), deployment shop: Succeeded")


def test_tasks_logs_prints_what_a_task_printed(folder: Folder) -> None:
    """The saved log; it needs no record."""
    for env in (RECORD, {}):
        assert "TypeError: 'str' object" in folder.call("tasks", "logs", "bad", **env).stdout
    assert "TypeError: 'str' object" in inside(folder.path, "tasks", "logs", "bad", env={**folder.env, **RECORD}).stdout


def test_an_id_that_nobody_knows_is_one_line(folder: Folder) -> None:
    """Which says where was looked, and what else there is."""
    assert "the record of pods has no task 'deadbeef'" in folder.refused("tasks", "explain", "deadbeef", **RECORD)
    line = inside(folder.path, "tasks", "explain", "deadbeef", env={**folder.env, **RECORD}).stderr
    assert "no attempt and no pod of a task with the id 'deadbeef'" in line
    assert "name that with --app" in line


def test_queues_list_shows_the_queues_of_the_application(folder: Folder) -> None:
    """Those with rules, its default queue and those of its routes; who consumes them; and how to start a consumer."""
    found = {one["queue"]: one for one in folder.json("queues", "list")}
    assert {name: (one["side"], one["messages"]) for name, one in found.items()} == {
        "kubernetes": ("kubernetes", 0),
        "shop": ("celery", 1),
    }
    assert [node.partition("@")[0] for node in found["kubernetes"]["consumers"]] == ["dispatcher"]
    assert found["shop"]["start"] == "celery -A shop:app worker -Q shop"
    told = folder.call("queues", "explain", "gpu-1", app="shop_two:app").stdout
    assert "decided by the rule 'gpu-*' (app.conf.podyard['queues']['gpu-*'])" in told
    assert "podyard dispatcher --app shop_two:app --queues gpu-1" in told


def test_health_knows_the_folder_of_the_application(folder: Folder) -> None:
    """Its dispatcher is there; of an application that names another folder none is."""
    parts.eventually(lambda: folder.call("health", "--expect", "dispatcher").returncode == 0, 20, every_s=0.5)
    line = folder.call("health", app="shop_two:app").stderr
    assert f"no process has written into {folder.path}/health-of-two" in line


def test_a_database_without_tables_says_what_makes_them(folder: Folder) -> None:
    """Not the words of the database."""
    assert "make it with `podyard db upgrade --app shop_two:app`" in folder.refused("pods", "list", app="shop_two:app")
    sqlite3.connect(folder.path / "two.db").close()
    (folder.path / "two.db").touch()
    assert "there is none, or one of another version; run `podyard db upgrade`" in folder.refused(
        "pods", "list", app="shop_two:app"
    )


def test_an_application_may_bring_options_of_its_own(folder: Folder) -> None:
    """`app.conf.podyard` as an Options instead of a mapping: the same commands, and the one rule that is known."""
    (folder.path / "shop_options.py").write_text(
        "from shop_two import *\n"
        "from dispatcher.options import Options, QueueProfile\n"
        "app = Celery('three', broker=os.environ['SHOP_BROKER'], set_as_current=False)\n"
        "app.conf.podyard = Options(\n"
        "    profile_for=lambda queue: QueueProfile(max_pods=7), app_path='x:app', deployment='three'\n"
        ")\n"
    )
    found = {one["key"]: one["value"] for one in folder.json("config", "show", app="shop_options:app")}
    assert (found["deployment"], found["queues.kubernetes.max_pods"], found["kubernetes.app"]) == ("three", 7, "x:app")
    assert "keeps no record of pods" in folder.refused("pods", "list", app="shop_options:app")


def test_what_is_no_application_is_one_line(folder: Folder) -> None:
    """As for `podyard dispatcher --app`."""
    assert "no Celery application could be loaded" in folder.refused("pods", "list", app="nowhere:app")
    assert "a Celery application has no runs of tasks" in folder.refused("tasks", "list")


@pytest.mark.parametrize(
    ("database", "words"),
    [
        ({}, "keeps no record of pods: give both database_url in app.conf.podyard"),
        ({"PODYARD_DATABASE__URL": "sqlite:///not-made.db"}, "not-made.db: make it with `podyard db upgrade`"),
        ({"PODYARD_DATABASE__URL": "sqlite:///empty.db"}, "there is none, or one of another version; run `podyard db"),
    ],
    ids=["without a record", "without a database", "without tables"],
)
def test_flowers_page_of_pods_says_what_to_do(folder: Folder, database: dict[str, str], words: str) -> None:
    """Page and API, instead of the words of the database; and nothing is made by looking."""
    (folder.path / "empty.db").touch()
    port = layout.free_port()
    flower = {"PODYARD_FLOWER__PORT": str(port), "PODYARD_FLOWER__BASIC_AUTH": "me:sesame"}
    log = folder.path / f"flower-{port}.log"
    process = parts.start(
        [PODYARD, "flower", "--app", "shop:app"], log=log, cwd=folder.path, env={**folder.env, **database, **flower}
    )

    def got(path: str) -> tuple[int, str]:
        token = base64.b64encode(b"me:sesame").decode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Basic {token}"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, html.unescape(answer.read().decode())
        except urllib.error.HTTPError as error:
            return error.code, html.unescape(f"{error.reason} {error.read().decode()}")
        except OSError as error:
            raise AssertionError(error) from error  # it does not listen yet

    try:
        code, page = parts.eventually(lambda: got("/pods"), 30, every_s=0.2, what="Flower listens")
        assert (code, words in page) == (200, True), page
        code, answer = got("/api/pods")
        assert (code, words in answer) == (503, True), answer
        assert not {"OperationalError", "no such table"} & set(f"{page} {answer}".split())
    finally:
        parts.stop(process)
    assert not (folder.path / "not-made.db").exists()
