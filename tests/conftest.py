"""Fixtures of real parts for every ring, and the report of the rings that ran."""

import itertools
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests import parts

hypothesis.settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("explore", max_examples=2_000, deadline=None)
hypothesis.settings.load_profile("steady")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell does that to what it runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # processes of ours would inherit it, and Ctrl-C not work

AIRFLOW_RING = Path(__file__).with_name("airflow")
"""Has an environment of its own and runs when it is named: `make test-airflow`."""
LONG = (
    "tests/e2e/test_standalone.py",
    "tests/integration/test_scheduler.py",
    "tests/integration/test_failure_modes_record.py",
    "tests/integration/test_limits.py",
    "tests/integration/test_waits.py",
    "tests/integration/test_celery_control.py",
)
"""Files that begin first where several run side by side, lest all wait for one of them at the end."""
RINGS = ("unit", "contract", "integration", "e2e", "chaos")
"""Folders of `tests/` that a full run must have run."""
MATRIX = "pod and prefork"
"""The property of a test's report that is a row of the matrix of `integration/test_celery_app.py`."""
SERVERS = frozenset(
    {
        *("valkey_server", "own_valkey", "postgres_server", "local_cluster_server", "own_local_cluster"),
        "server",  # of the contract ring: it asks for the local cluster only where no real one is given
    }
)
"""Fixtures that start a process: a test that needs one of them, whatever its ring, is not one of `make quick`."""


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[parts.Valkey]:
    """One Valkey server for the session; ask for `valkey` unless you need the server itself."""
    server = parts.Valkey.start(tmp_path_factory.mktemp("valkey"))
    yield server
    server.stop()


@pytest.fixture
def valkey(valkey_server: parts.Valkey) -> parts.ValkeyDatabase:
    """An empty Valkey database: `.url`, `.client()`."""
    return valkey_server.fresh()


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[parts.Valkey]:
    """A Valkey server of this test alone, to kill and restart: `.kill()`, `.restart()`, `.fresh().url`."""
    server = parts.Valkey.start(tmp_path / "own-valkey")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[parts.Postgres]:
    """One PostgreSQL server for the session; ask for `postgres` unless you need the server itself."""
    server = parts.Postgres.start()
    yield server
    server.stop()


@pytest.fixture
def postgres(postgres_server: parts.Postgres) -> Iterator[str]:
    """The SQLAlchemy address of an empty PostgreSQL database of this test."""
    name = postgres_server.create_database()
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def local_cluster_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[parts.LocalCluster]:
    """One local cluster for the session: `.kubeconfig`."""
    cluster = parts.LocalCluster.start(tmp_path_factory.mktemp("cluster") / "home")
    yield cluster
    cluster.stop()


_deployments = itertools.count(1)


@pytest.fixture
def local_cluster(local_cluster_server: parts.LocalCluster) -> parts.LocalCluster:
    """The session's local cluster. Pods of other tests live there too: use `deployment` or a namespace of your own."""
    return local_cluster_server


@pytest.fixture
def deployment() -> str:
    """A deployment id that no other test of this session has."""
    return f"test-{next(_deployments)}"


@pytest.fixture
def own_local_cluster(tmp_path: Path) -> Iterator[parts.LocalCluster]:
    """A local cluster of this test alone, to kill and restart."""
    cluster = parts.LocalCluster.start(tmp_path / "own-cluster")
    yield cluster
    cluster.stop()


def _ring_of(nodeid: str) -> str:
    """`tests/unit/manifests/test_names.py::…` -> `unit`."""
    words = nodeid.split("/")
    return words[1] if len(words) > 2 and words[0] == "tests" else "other"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves the ring of Airflow to those who ask for it."""
    is_asked = any(Path(word.partition("::")[0]).absolute().is_relative_to(AIRFLOW_RING) for word in config.args)
    return None if is_asked or collection_path != AIRFLOW_RING else True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order, marks that follow from what a test is, and no `kubectl` test where the program is absent."""
    order = {ring: place for place, ring in enumerate(RINGS)}
    items.sort(key=lambda item: order.get(_ring_of(item.nodeid), len(order)))
    if _is_parallel(config):  # what is long first, and the quick rings last: they fill the gaps
        items.sort(key=lambda item: -order.get(_ring_of(item.nodeid), len(order)))
        items.sort(key=lambda item: item.location[0] not in LONG)
    for item in items:
        if SERVERS.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.processes)
        if again := item.get_closest_marker("second_look"):
            if not again.kwargs.get("reason"):
                raise pytest.UsageError(f"{item.nodeid}: second_look needs a reason=")
            item.add_marker(pytest.mark.flaky(reruns=1))
    if shutil.which("kubectl") is None:
        for item in items:
            if item.get_closest_marker("kubectl"):
                item.add_marker(pytest.mark.skip(reason="the program kubectl is not on this machine"))


def _is_parallel(config: pytest.Config) -> bool:
    """Whether this is one of several processes that share the tests."""
    return hasattr(config, "workerinput")


def _is_full_run(config: pytest.Config) -> bool:
    """Whether all tests were asked for: no path, no -k, no -m, no --last-failed."""
    narrowed = config.option.keyword or config.option.markexpr or getattr(config.option, "lf", False)
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS and not narrowed


def _called(terminalreporter: pytest.TerminalReporter) -> list[pytest.TestReport]:
    """The reports of tests that were run to their end, well or badly."""
    reports = terminalreporter.stats.get("passed", []) + terminalreporter.stats.get("failed", [])
    return [report for report in reports if report.when == "call"]


def _passed(terminalreporter: pytest.TerminalReporter) -> Counter[str]:
    return Counter(_ring_of(report.nodeid) for report in _called(terminalreporter))


def _empty_rings(terminalreporter: pytest.TerminalReporter) -> list[str]:
    ran = _passed(terminalreporter)
    return [ring for ring in RINGS if not ran[ring]]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A ring of which nothing ran fails a full run: a skipped ring must not go unnoticed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if _is_parallel(session.config):
        return  # a part of a run; who gives the parts out sees all reports
    if reporter and _is_full_run(session.config) and session.exitstatus == 0 and _empty_rings(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which rings ran, and what did not run."""
    ran = _passed(terminalreporter)
    terminalreporter.section("rings")
    terminalreporter.write_line(
        "rings that ran: " + (", ".join(f"{ring} {count}" for ring, count in sorted(ran.items())) or "none")
    )
    unsteady = {report.nodeid for report in terminalreporter.stats.get("rerun", [])}
    for nodeid in sorted(unsteady - {report.nodeid for report in terminalreporter.stats.get("failed", [])}):
        terminalreporter.write_line(f"unsteady, passed at the second look: {nodeid}", yellow=True)
    rows = [value for report in _called(terminalreporter) for key, value in report.user_properties if key == MATRIX]
    if rows:
        terminalreporter.section("what Celery promises, in a pod and in a prefork worker")
        terminalreporter.write_line(f"{'':56} {'pod':38} prefork")
        for name, pod, prefork in rows:
            terminalreporter.write_line(f"{name:56.56} {pod:38.38} {prefork:.38}")
    absent = [report for report in terminalreporter.stats.get("skipped", []) if "kubectl" in report.keywords]
    if absent:
        terminalreporter.write_line(
            f"not run: {len(absent)} tests that need the program kubectl, which is not on this machine"
        )
    if _is_full_run(config):
        for ring in _empty_rings(terminalreporter):
            terminalreporter.write_line(f"FAILED ring {ring}: no test of it ran", red=True)
