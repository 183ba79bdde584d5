"""A real Airflow for tests: scheduler, API server, DAG processor and Celery worker as processes of an environment of
their own, on the suite's PostgreSQL and Valkey, with dispatchers and the local cluster of this environment beside it.

The environment is made by `make test-airflow`; PODYARD_TEST_AIRFLOW names its interpreter.
"""

import contextlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dispatcher.localcluster.client import Client
from tests import parts

PYTHON_VARIABLE = "PODYARD_TEST_AIRFLOW"
DAG_FILES = Path(__file__).parent / "dagfiles"
LIGHT_IMAGE = Path(__file__).parent / "light_image"
"""What pods of the queue `light` find in the place of Airflow."""
DONE = ("success", "failed")
PODS = "/api/v1/namespaces/default/pods"
SECRET = "a-secret-of-the-test-that-is-long-enough-for-sha512-signatures-0123456789"


def python() -> Path:
    """The interpreter of the Airflow environment. Fails where there is none: this ring is not skipped."""
    named = os.environ.get(PYTHON_VARIABLE, "")
    assert named, f"{PYTHON_VARIABLE} is not set: run this ring by `make test-airflow`, which makes the environment"
    path = Path(named).absolute()
    assert path.exists(), f"{PYTHON_VARIABLE}={named}: there is no such interpreter; `make test-airflow` makes it"
    return path


@dataclass(kw_only=True)
class Installation:
    """One Airflow with its parts."""

    folder: Path
    database: str
    """A database of PostgreSQL that is empty, as SQLAlchemy reads it."""
    valkey: parts.Valkey
    """Broker and result backend, of this Airflow alone."""
    kubeconfig: Path
    port: int
    settings: Mapping[str, str] = field(default_factory=dict)
    """More of Airflow's variables."""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _starts: dict[str, int] = field(default_factory=dict)
    """Where in its log the last life of a process begins."""

    @property
    def broker(self) -> str:
        return self.valkey.address.url(0)

    @property
    def cluster(self) -> Client:
        return Client.from_kubeconfig(self.kubeconfig)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def light_record(self) -> Path:
        """Where each body of the queue `light` leaves a line."""
        return self.folder / "light-record"

    def environment(self) -> dict[str, str]:
        """What every process of Airflow has."""
        return {
            "PATH": f"{python().parent}:{os.environ['PATH']}",
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAG_FILES),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "routing.airflow.PodyardExecutor",
            "AIRFLOW__CORE__FERNET_KEY": "",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__SECRET_KEY": SECRET,
            "AIRFLOW__API_AUTH__JWT_SECRET": SECRET,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.database.replace("+psycopg:", "+psycopg2:"),
            "AIRFLOW__CELERY__BROKER_URL": self.broker,
            "AIRFLOW__CELERY__RESULT_BACKEND": self.broker,
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": "4",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.home / "logs"),
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",  # one small machine bears all of it
            "AIRFLOW__CORE__PARALLELISM": "500",
            "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT": "500",
            "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "200",
            "BESIDE_KUBECONFIG": str(self.kubeconfig),
            "PODYARD_QUEUES__LIGHT__SIDE": "kubernetes",
            "PYTHONUNBUFFERED": "1",
            "NO_PROXY": "127.0.0.1",
            "PODYARD_HOME": str(self.folder / "podyard"),
            **self.settings,
        }

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.light_record.touch()

    def prepare(self) -> None:
        """Makes the tables."""
        answer = subprocess.run(
            [python(), "-m", "airflow", "db", "migrate"],
            env={**os.environ, **self.environment()},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert answer.returncode == 0, f"airflow db migrate failed: {answer.stdout[-3000:]}\n{answer.stderr[-3000:]}"

    def start(self, name: str, *words: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Starts `airflow WORDS…` under a name."""
        command = [str(python()), "-m", "airflow", *words]
        return self._start(name, command, {**self.environment(), **(env or {})})

    def start_all(self) -> None:
        """Starts what every installation has, and waits until the API answers."""
        self.start_api_server()
        self.wait_for_api()  # one after the other: each takes seconds of CPU to start
        self.start("dag-processor", "dag-processor")
        self.start_scheduler()
        self.start("triggerer", "triggerer", "--skip-serve-logs")
        self.start("worker", "celery", "worker", "--queues", "default", "--skip-serve-logs")

    def start_api_server(self) -> None:
        logs = {"AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "routing.airflow.log_config.LOGGING_CONFIG"}
        self.start(
            "api-server", "api-server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1", env=logs
        )

    def start_scheduler(self, name: str = "scheduler", **env: str) -> None:
        self.start(name, "scheduler", "--skip-serve-logs", env=env)

    def start_dispatcher(self, name: str = "dispatcher", *words: str, env: Mapping[str, str] | None = None) -> None:
        """Starts a dispatcher of this environment, which has no Airflow."""
        command = [sys.executable, "-m", "routing.cli", "dispatcher", "--airflow", "--name", f"{name}@%h", *words]
        self._start(name, command, {**self.dispatcher_environment(), **(env or {})})

    def dispatcher_environment(self) -> dict[str, str]:
        """What a dispatcher is told, and through it every pod."""
        pods = {
            "HYBRID_SIDE": "pod",
            "AIRFLOW_HOME": str(self.folder / "pods"),
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.folder / "pods" / "logs"),
            "PYTHONUNBUFFERED": "1",
            "NO_PROXY": "127.0.0.1",
            **{
                name: self.environment()[name]
                for name in (
                    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
                    "AIRFLOW__CORE__DAGS_FOLDER",
                    "AIRFLOW__CORE__LOAD_EXAMPLES",
                    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED",
                    "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT",
                )
            },
        }
        return {
            "AIRFLOW__CELERY__BROKER_URL": self.broker,
            "AIRFLOW__CELERY__RESULT_BACKEND": self.broker,
            "PODYARD_HOME": str(self.folder / "podyard"),
            "PODYARD_KUBERNETES__KUBECONFIG": str(self.kubeconfig),
            "PODYARD_KUBERNETES__IMAGE": "apache/airflow:test",
            "PODYARD_QUEUES__KUBERNETES__ENV": json.dumps(pods),
            "PODYARD_QUEUES__LIGHT__SIDE": "kubernetes",
            "PODYARD_QUEUES__LIGHT__MAX_PODS": "50",
            "PODYARD_QUEUES__LIGHT__ENV": json.dumps(
                {
                    "PYTHONPATH": str(LIGHT_IMAGE),
                    "LIGHT_RECORD": str(self.light_record),
                    "LIGHT_SECONDS": "3",
                    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
                    "NO_PROXY": "127.0.0.1",
                }
            ),
        }

    def _start(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        self._starts[name] = self.log(name).stat().st_size if self.log(name).exists() else 0
        process = parts.start(command, log=self.log(name), env=env, cwd=self.folder)
        self.processes[name] = process
        return process

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def wait_for_dispatcher(self, name: str = "dispatcher") -> None:
        """Waits until a dispatcher that was started consumes."""

        def has_begun() -> bool:
            parts.is_alive(self.processes[name], self.log(name))
            return " ready." in self.last_log(name)

        parts.eventually(has_begun, 90, every_s=0.1, what=f"{name} consumes")

    def last_log(self, name: str) -> str:
        """What a process has logged since it was started last."""
        with self.log(name).open("rb") as file:
            file.seek(self._starts[name])
            return file.read().decode(errors="replace")

    def stop(self, *names: str, **how: Any) -> None:
        """Ends processes by name, all of them without one."""
        for name in names or list(self.processes):
            with contextlib.suppress(KeyError):
                parts.stop(self.processes.pop(name), **how)

    # The API, as the UI uses it.

    def wait_for_api(self) -> None:
        parts.eventually(self._is_up, 240, every_s=0.3, what="Airflow's API answers")

    def _is_up(self) -> bool:
        parts.is_alive(self.processes["api-server"], self.log("api-server"))
        try:
            return bool(self.get("/api/v2/version"))
        except AssertionError:
            return False

    def get(self, path: str, **more: Any) -> Any:
        return self.ask("GET", path, **more)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One call; AssertionError with the answer where it is refused, or with the trouble where there is none."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if path.startswith("/api/"):
            headers["Authorization"] = f"Bearer {self._token()}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read()[:2000]!r}") from None
        except OSError as error:  # refused or too slow: who waits for something asks again
            raise AssertionError(f"{method} {path}: {error!r}") from None

    _token_text: str = ""

    def _token(self) -> str:
        if not self._token_text:
            self._token_text = self.ask("GET", "/auth/token")["access_token"]
        return self._token_text

    def wait_for_dag(self, dag: str) -> None:
        parts.eventually(lambda: self.get(f"/api/v2/dags/{dag}"), 240, every_s=0.3, what=f"the DAG {dag} is known")

    def trigger(self, dag: str, **conf: Any) -> "Run":
        """Starts a run of a DAG as soon as Airflow knows it."""
        self.wait_for_dag(dag)
        self.ask("PATCH", f"/api/v2/dags/{dag}", {"is_paused": False})
        run = self.ask("POST", f"/api/v2/dags/{dag}/dagRuns", {"logical_date": None, "conf": conf})
        return Run(airflow=self, dag=dag, id=run["dag_run_id"])


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a DAG."""

    airflow: Installation
    dag: str
    id: str

    @property
    def path(self) -> str:
        return f"/api/v2/dags/{self.dag}/dagRuns/{self.id}"

    def state(self) -> str:
        return str(self.airflow.get(self.path)["state"])

    def wait(self, *states: str, timeout_s: float = 120) -> str:
        """Waits until the run is over, or in one of the states."""
        wanted = states or DONE
        return str(
            parts.eventually(
                lambda: next((state for state in [self.state()] if state in wanted), None),
                timeout_s,
                every_s=0.3,
                what=f"{self.dag} is {' or '.join(wanted)}",
            )
        )

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Task id (with the index of a mapped one) -> what the API says of it."""
        found: list[dict[str, Any]] = []
        while True:  # a page has no more than a hundred, whatever is asked for
            page = self.airflow.get(f"{self.path}/taskInstances?limit=100&offset={len(found)}")
            found += page["task_instances"]
            if len(found) >= page["total_entries"] or not page["task_instances"]:
                break
        return {one["task_id"] + (f"[{one['map_index']}]" if one["map_index"] >= 0 else ""): one for one in found}

    def task(self, name: str) -> dict[str, Any]:
        return self.tasks()[name]

    def wait_for_task(self, name: str, *states: str, timeout_s: float = 90) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            found = self.task(name)
            assert found["state"] in states, found["state"]
            return found

        return parts.eventually(look, timeout_s, every_s=0.2, what=f"{name} is {' or '.join(states)}")

    def wait_for_body(self, task: str = "sleep", *, says: str = "begins to sleep") -> None:
        """Waits until the body of a task runs, by its log."""

        def look() -> bool:
            log = self.log(task, self.task(task)["try_number"])
            assert says in log, log
            return True

        self.wait_for_task(task, "running", timeout_s=240)
        parts.eventually(look, 60, every_s=0.5, what="the log of the running pod")

    def pod_objects(self) -> list[dict[str, Any]]:
        """Pods of tasks of this run, as the Kubernetes API has them."""
        found: list[dict[str, Any]] = self.airflow.cluster.call("GET", PODS, labelSelector=f"dag_id={self.dag}")[
            "items"
        ]
        return [pod for pod in found if pod["metadata"]["annotations"].get("run_id") == self.id]

    def pods(self) -> list[str]:
        """The names of pods of tasks of this run that are there."""
        return [pod["metadata"]["name"] for pod in self.pod_objects()]

    def events(self, event: str) -> list[dict[str, Any]]:
        """What Airflow's event log has of one kind for this run, oldest first."""
        query = urllib.parse.urlencode({"dag_id": self.dag, "event": event, "limit": 100})
        found = self.airflow.get(f"/api/v2/eventLogs?{query}")["event_logs"]
        return sorted((one for one in found if one["run_id"] == self.id), key=lambda one: one["event_log_id"])

    def clear(self, *tasks: str) -> None:
        """Clears tasks, as a user does who wants them to run again."""
        body = {"dry_run": False, "task_ids": list(tasks), "dag_run_id": self.id, "only_failed": False}
        self.airflow.ask("POST", f"/api/v2/dags/{self.dag}/clearTaskInstances", body)

    def log(self, task: str, try_number: int = 1, map_index: int = -1) -> str:
        """The log of one try, as the UI shows it."""
        content = self.airflow.get(
            f"{self.path}/taskInstances/{task}/logs/{try_number}?map_index={map_index}&full_content=true"
        )["content"]
        return "\n".join(entry["event"] if isinstance(entry, dict) else str(entry) for entry in content)

    def xcom(self, task: str) -> Any:
        return self.airflow.get(f"{self.path}/taskInstances/{task}/xcomEntries/return_value?deserialize=false")["value"]
