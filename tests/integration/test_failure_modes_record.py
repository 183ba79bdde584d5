"""Rows of docs/failure-modes.md on the record's side, each by its id: workers, database, authors, time, monitoring.

One scheduler and one Celery worker on Valkey and PostgreSQL; what happens to an attempt is read from the record, what
its body did from the file that it appended to.
"""

import contextlib
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from routing.cli import reach
from routing.store import rows
from tests import parts
from tests.integration.halves import Half

MORE = """
[scheduler]
sweep_s = 0.2
infra_retries = 1
infra_retry_delay_s = 0.05
"""


@pytest.fixture(scope="module")
def half(
    tmp_path_factory: pytest.TempPathFactory, valkey_server: parts.Valkey, postgres_server: parts.Postgres
) -> Iterator[Half]:
    """A scheduler and a worker, shared by the tests of this module."""
    database = postgres_server.create_database()
    half = Half.make(
        tmp_path_factory.mktemp("failure-modes") / "half",
        broker=valkey_server.fresh().url,
        database=postgres_server.url(database),
        more=MORE,
    )
    with half.worker(concurrency=3), half.scheduler():
        yield half
    half.close()
    postgres_server.drop_database(database)


def attempts(half: Half, run: rows.RunRow, task_id: str) -> list[rows.AttemptRow]:
    """The attempts of one task, in order."""
    return list(half.store.attempts(run.run_id, task_id, dag_id=run.dag_id))


NOTE = """
import os, signal, time
from pathlib import Path
HERE = Path(__file__).parent.parent

def note(word):
    with (HERE / "notes").open("a") as file:
        file.write(f"{word}\\n")

def wait_for(name):
    until = time.monotonic() + 60
    while not (HERE / name).exists() and time.monotonic() < until:
        time.sleep(0.05)
"""


@contextlib.contextmanager
def mortal_worker(half: Half, queue: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker whose pulse ends with it; it would run out by itself, within 20 s."""
    with half.app.connection_for_read() as connection:
        client = connection.default_channel.client
        others = set(client.keys("podyard:default:worker:*"))
        with half.worker(concurrency=1, name=f"{uuid.uuid4()}@test", queues=queue) as worker:
            yield worker
        for key in set(client.keys("podyard:default:worker:*")) - others:
            client.delete(key)


def put(half: Half, name: str, *tasks: str) -> None:
    """A DAG file of that name: its tasks, after the helpers above."""
    body = "\n".join(textwrap.indent(textwrap.dedent(one), "    ") for one in tasks)
    half.write_dag(f'{NOTE}\nwith DAG("{name}"):\n{body}', f"{name}.py")


# --- B: workers and broker


def test_B11_a_delay_longer_than_the_visibility_time_out_is_not_the_brokers(half: Half) -> None:
    """A retry that is due in a day stands in the record; the broker holds no message for it that it could repeat."""
    put(
        half,
        "patient",
        """
        @task(retries=1, retry_delay=86_400)
        def tomorrow():
            note("tomorrow")
            raise ValueError("not today")
        tomorrow()
        """,
    )
    run = half.trigger("patient")
    half.wait_task(run, "tomorrow", lambda task: task.state == "up_for_retry")

    assert [one.state for one in attempts(half, run, "tomorrow")] == ["failed"]
    assert half.notes().count("tomorrow") == 1
    with half.app.connection_for_read() as connection:
        client = connection.default_channel.client
        assert (client.llen("default"), client.hlen("unacked")) == (0, 0)
    half.store.cancel_run(run.run_id, dag_id="patient", at=datetime.now(UTC))


def test_B17_a_busy_worker_holds_no_message_that_another_could_run(half: Half) -> None:
    """Its one process is busy: what follows waits in the queue, where a second worker finds it at once."""
    put(
        half,
        "hoard",
        """
        @task(queue="narrow")
        def long():
            note("long")
            wait_for("enough")
        @task(queue="narrow")
        def short():
            note("short")
        first = long()
        """,
    )
    with half.worker(concurrency=1, name="first@test", queues="narrow"):
        busy = half.trigger("hoard")
        parts.eventually(lambda: "long" in half.notes(), 20)
        put(
            half,
            "little",
            """
            @task(queue="narrow")
            def short(number):
                return number
            for number in range(3):
                short.override(task_id=f"short{number}")(number)
            """,
        )
        little = half.trigger("little")
        half.wait_task(little, "short2", lambda task: task.state in ("queued", "sent"))
        with half.worker(concurrency=1, name="second@test", queues="narrow"):
            assert half.wait(little, timeout_s=10).state == "success"
            assert half.task(busy, "long").state == "running"
            (half.folder / "enough").touch()
            assert half.wait(busy).state == "success"


def test_B18_what_a_shutdown_did_not_wait_for_is_tried_again_and_not_charged(half: Half) -> None:
    """SIGTERM, and SIGKILL before the body has ended: lost, by the infrastructure's fault, though it has no retry."""
    put(
        half,
        "drain",
        """
        @task(queue="drained")
        def slow():
            note("slow")
            if (HERE / "notes").read_text().split().count("slow") == 1:
                wait_for("never")
        slow()
        """,
    )
    with mortal_worker(half, "drained") as worker:
        run = half.trigger("drain")
        parts.eventually(lambda: "slow" in half.notes(), 20)
        half.wait_task(run, "slow", lambda task: task.state == "running")
        worker.send_signal(signal.SIGTERM)
        parts.eventually(lambda: "Warm shutdown" in (half.folder / "worker.log").read_text(), 10)
        worker.kill()
        worker.wait(10)
    with half.worker(concurrency=1, name="coming@test", queues="drained"):
        assert half.wait(run).state == "success"

    first, second = attempts(half, run, "slow")
    assert (first.state, first.cause) == ("lost", "infrastructure")
    assert (second.state, half.notes().count("slow")) == ("succeeded", 2)


def test_B16_a_server_that_evicts_keys_is_warned_of_at_the_start(
    own_valkey: parts.Valkey, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`config check` and every part that starts say so; one that refuses writes instead is right."""
    database = own_valkey.fresh()
    half = Half.make(tmp_path / "half", broker=database.url)
    with database.client() as client:
        client.config_set("maxmemory", "100mb")
    assert "WARNING" not in reach.broker(half.settings)

    with database.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    warning = "maxmemory-policy is allkeys-lru: at 100.00M it throws keys away"
    assert warning in reach.broker(half.settings)
    reach.wait_for(half.settings, broker=reach.broker)
    assert warning in capsys.readouterr().err
    half.close()


# --- S: the database


def test_S4_a_serialisation_failure_is_rolled_back_and_done_again(half: Half, caplog: pytest.LogCaptureFixture) -> None:
    """The first three new attempts fail with 40001 and 40P01: the turn is done again, and each body runs once."""
    with half.store.db.write() as connection:
        connection.exec_driver_sql("CREATE SEQUENCE fault")  # counts on though a transaction is rolled back
        connection.exec_driver_sql(
            """
            CREATE FUNCTION fail_first() RETURNS trigger LANGUAGE plpgsql AS $$
            DECLARE n bigint := nextval('fault');
            BEGIN
              IF n = 1 THEN RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001'; END IF;
              IF n <= 3 THEN RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01'; END IF;
              RETURN NEW;
            END $$
            """
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER fail_first BEFORE INSERT ON attempt FOR EACH ROW EXECUTE FUNCTION fail_first()"
        )
    try:
        put(
            half,
            "serial",
            """
            @task
            def step(number):
                note(f"step{number}")
            for number in range(4):
                step.override(task_id=f"step{number}")(number)
            """,
        )
        run = half.wait(half.trigger("serial"))
    finally:
        with half.store.db.write() as connection:
            failures = connection.exec_driver_sql("SELECT last_value FROM fault").scalar_one()
            connection.exec_driver_sql("DROP TRIGGER fail_first ON attempt")
            connection.exec_driver_sql("DROP FUNCTION fail_first")
            connection.exec_driver_sql("DROP SEQUENCE fault")

    assert failures > 3
    assert run.state == "success"
    assert [half.notes().count(f"step{number}") for number in range(4)] == [1, 1, 1, 1]
    assert [one.number for one in half.store.attempts(run.run_id, dag_id="serial")] == [1, 1, 1, 1]
    assert "Traceback" not in caplog.text


def test_S9_T1_a_lease_is_measured_by_the_databases_clock_alone(half: Half) -> None:
    """A host whose clock is an hour ahead takes nobody's lease, one whose clock is an hour behind keeps its own."""
    now, hour = datetime.now(UTC), timedelta(hours=1)
    with half.store.writing() as book:
        assert book.take("clocks", "one", lease_s=60, now=now - hour) is None
    with half.store.writing() as book:
        assert book.take("clocks", "other", lease_s=60, now=now + hour) == "one"
        assert book.take("clocks", "one", lease_s=60, now=now - hour) is None
    with half.store.writing() as book:
        book.end_lease("clocks", "one")
        assert book.take("clocks", "other", lease_s=60, now=now) is None


# --- A: authors


def test_A5_a_task_that_kills_every_worker_is_given_up(half: Half) -> None:
    """It takes its whole worker with it: after the infrastructure's budget it has failed, and no worker dies more."""
    put(
        half,
        "poison",
        """
        @task(queue="poisoned")
        def deadly():
            note("deadly")
            os.kill(os.getppid(), signal.SIGKILL)
            wait_for("never")
        deadly()
        """,
    )
    run = half.trigger("poison")
    for _ in range(2):
        with mortal_worker(half, "poisoned") as worker:
            worker.wait(20)
    assert half.wait(run).state == "failed"

    assert [(one.state, one.cause) for one in attempts(half, run, "deadly")] == [("lost", "infrastructure")] * 2
    assert half.notes().count("deadly") == 2
    with half.app.connection_for_read() as connection:
        assert connection.default_channel.client.llen("poisoned") == 0


def test_A13_a_dag_that_is_removed_while_it_runs_keeps_its_verdicts(half: Half) -> None:
    """The body that runs ends and counts; what follows fails with the file's name; nothing begins anew."""
    put(
        half,
        "removed",
        """
        @task
        def runs():
            note("runs")
            wait_for("go-on")
            return "kept"
        @task
        def follows(given):
            note("follows")
        follows(runs())
        """,
    )
    run = half.trigger("removed")
    parts.eventually(lambda: "runs" in half.notes(), 20)
    (half.folder / "dags" / "removed.py").unlink()
    parts.eventually(lambda: (dag := half.store.dag("removed")) and not dag.is_active, 20, what="it is gone")
    (half.folder / "go-on").touch()
    ended = half.wait(run)

    first, then = half.task(run, "runs"), half.task(run, "follows")
    assert (first.state, first.result) == ("success", "kept")
    assert (then.state, half.notes().count("follows")) == ("failed", 0)
    assert all("removed.py" in str(one.error) for one in attempts(half, run, "follows"))
    assert ended.state == "failed"


def test_A15_each_attempt_has_the_queue_that_it_was_sent_to(half: Half) -> None:
    """The author changes the queue between two tries: a run keeps the queue that it began with, the next one has the
    new one, and nothing changes what the rows of attempts say."""
    text = """
        @task(queue="{queue}", retries=1, retry_delay=1.0)
        def moves():
            note("{queue}")
            if "{queue}" == "default":
                raise ValueError("not here")
        moves()
        """
    put(half, "moving", text.format(queue="default"))
    run = half.trigger("moving")
    half.wait_task(run, "moves", lambda task: task.state == "up_for_retry")
    version = half.store.dag("moving")
    put(half, "moving", text.format(queue="elsewhere"))
    parts.eventually(lambda: half.store.dag("moving") != version, 20, what="the new version is loaded")
    assert half.wait(run).state == "success"
    with half.worker(concurrency=1, name="elsewhere@test", queues="elsewhere"):
        later = half.wait(half.trigger("moving"))

    assert [(one.queue, one.state) for one in attempts(half, run, "moves")] == [
        ("default", "failed"),
        ("default", "succeeded"),
    ]
    assert [(one.queue, one.state) for one in attempts(half, later, "moves")] == [("elsewhere", "succeeded")]


# --- T: monitoring


def test_T4_a_flower_that_hangs_holds_nothing_up(half: Half) -> None:
    """It has subscribed to all events and stands still: runs go on as ever."""
    put(
        half,
        "watched",
        """
        @task
        def seen():
            return 1
        for number in range(20):
            seen.override(task_id=f"seen{number}")()
        """,
    )
    with half.app.connection_for_read() as connection, parts.listening() as port:
        client = connection.default_channel.client
        before = client.execute_command("PUBSUB", "NUMPAT")
    flower = parts.start(
        [sys.executable, "-m", "routing.cli", "flower"],
        log=half.folder / "flower.log",
        env={"PODYARD_CONFIG": str(half.config), "PODYARD_FLOWER__PORT": str(port)},
    )
    try:
        parts.eventually(lambda: client.execute_command("PUBSUB", "NUMPAT") > before, 20, what="Flower listens")
        flower.send_signal(signal.SIGSTOP)
        assert half.wait(half.trigger("watched")).state == "success"
        assert flower.poll() is None
    finally:
        flower.send_signal(signal.SIGCONT)
        parts.stop(flower, how=signal.SIGKILL)
