"""DAGs with pods, as authors write them, on the scheduler, a worker, a dispatcher and the local cluster."""

import base64
import json
import shutil
import ssl
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from routing.store import rows
from tests import parts
from tests.integration.halves import Half

PODYARD = str(Path(sys.executable).with_name("podyard"))
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SECRETS = {"airflow-secrets": {"sql_alchemy_conn": "postgresql://db"}, "airflow-secrets-2": {"TOKEN": "t"}}
CONFIG_MAPS = {"test-configmap-1": {"COLOUR": "blue"}, "test-configmap-2": {"SIZE": "large"}}


def post(kubeconfig: Path, path: str, body: dict[str, Any]) -> None:
    """Makes an object, past all code of ours."""
    config = yaml.safe_load(kubeconfig.read_text())
    cluster, token = config["clusters"][0]["cluster"], config["users"][0]["user"]["token"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    request = urllib.request.Request(f"{cluster['server']}{path}", data=json.dumps(body).encode(), method="POST")
    request.add_header("Authorization", f"Bearer {token}")
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=10, context=ssl.create_default_context(cadata=authority)):
        pass


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, valkey_server: parts.Valkey) -> Iterator[Half]:
    """Both halves, with the example DAGs and what their pods need."""
    folder = tmp_path_factory.mktemp("pods")
    cluster = parts.LocalCluster.start(folder / "cluster")
    for name, data in SECRETS.items():
        body = {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": name}, "stringData": data}
        post(cluster.kubeconfig, "/api/v1/namespaces/default/secrets", body)
    for name, data in CONFIG_MAPS.items():
        body = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": data}
        post(cluster.kubeconfig, "/api/v1/namespaces/default/configmaps", body)
    more = (
        f'[kubernetes]\nkubeconfig = "{cluster.kubeconfig}"\n'
        f'[queues.kubernetes]\nside = "kubernetes"\n'
        f'env = {{ PODYARD_DAGS__FOLDER = "{folder / "half" / "dags"}" }}\n'
    )
    half = Half.make(folder / "half", broker=valkey_server.fresh().url, more=more)
    for name in ("kubernetes_pod_operator.py", "pod_override.py", "pods"):
        source = EXAMPLES / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, half.folder / "dags" / name)
    half.copy_dag("operator_samples")
    dispatcher = parts.start([PODYARD, "dispatcher", "--config", half.config], log=half.folder / "dispatcher.log")
    try:
        with half.worker(), half.scheduler():
            yield half
    finally:
        parts.stop(dispatcher)
        cluster.stop()
        half.close()


def ended(half: Half, dag_id: str) -> tuple[rows.RunRow, dict[str, rows.TaskRow]]:
    """A run of a DAG, ended, and its tasks."""
    run = half.wait(half.trigger(dag_id), timeout_s=60)
    return run, {task.task_id: task for task in half.store.tasks(run.run_id, dag_id=dag_id)}


def log_of(half: Half, run: rows.RunRow, task_id: str) -> list[str]:
    """The saved log of a task's last attempt."""
    attempt = half.store.attempts(run.run_id, task_id, dag_id=run.dag_id)[-1]
    file = half.settings.logs.folder / f"{attempt.id}.log"
    return parts.eventually(lambda: file.exists() and file.read_text(), 10).splitlines()


@pytest.mark.parametrize("dag_id", ["first_page", "second_page"])
def test_the_samples_of_airflows_pages_run_with_changed_imports(both: Half, dag_id: str) -> None:
    """Secrets, volumes, config maps, affinity, tolerations, old names: the pod is made, and it succeeds."""
    run, tasks = ended(both, dag_id)
    assert (run.state, tasks["task"].side, tasks["task"].reason) == ("success", "kubernetes", None)


def test_the_example_of_the_pod_operator_does_what_it_says(both: Half) -> None:
    """What the pods saw of secrets, config maps and templates, and results on both sides."""
    run, tasks = ended(both, "kubernetes_pod_operator")
    assert {name: task.state for name, task in tasks.items()} == dict.fromkeys(tasks, "success")
    assert log_of(both, run, "task") == ["blue large t", "postgresql://db", "postgresql://db"]
    assert log_of(both, run, "private_image") == [f"hello from private_image on {run.logical_date:%Y-%m-%d}"]
    assert {name: tasks[name].result for name in ("write_xcom", "total", "first")} == {
        "write_xcom": [1, 2, 3, 4],
        "total": 10,
        "first": "1",
    }


def test_the_example_of_pod_overrides_does_what_it_says(both: Half) -> None:
    """A volume, a sidecar, a template beside the DAG file."""
    run, tasks = ended(both, "pod_override")
    assert run.state == "success", {name: task.reason for name, task in tasks.items()}
    assert {name: task.result for name, task in tasks.items()} == {
        "with_volume": "kept as long as the pod",
        "with_sidecar": "done",
        "with_template": "small",
    }


def test_a_bad_template_fails_its_task_and_nothing_else(both: Half) -> None:
    """With the reason and the path of the field; the author's retries are used; the scheduler goes on."""
    run, tasks = ended(both, "bad_templates")
    assert {name: task.state for name, task in tasks.items()} == {
        "undefined": "failed",
        "endless": "failed",
        "good": "success",
    }
    attempts = both.store.attempts(run.run_id, dag_id="bad_templates")
    failed = sorted((one.task_id, one.number, one.reason, one.cause) for one in attempts if one.state == "failed")
    assert failed == [
        ("endless", 1, "TemplateError", "application"),
        ("undefined", 1, "TemplateError", "application"),
        ("undefined", 2, "TemplateError", "application"),
    ]
    assert "cmds[1]: the template cannot be rendered: " in str(tasks["undefined"].reason)
    assert "cmds[1]: rendering took longer than 2 s" in str(tasks["endless"].reason)
    assert log_of(both, run, "good") == [f"1 {run.logical_date:%Y%m%d}"]
