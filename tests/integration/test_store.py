"""The record on SQLite and on a real PostgreSQL: migrations, questions, guards, odd values."""

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa
from alembic import autogenerate, command
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dispatcher.attempts import status_store
from routing.authoring import loading, spec
from routing.store import columns, entries, ledger, models, rows, schema, store_errors, tables
from routing.store.store import Store

AT = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return (
        f"sqlite:///{tmp_path / 'new' / 'podyard.db'}"
        if request.param == "sqlite"
        else request.getfixturevalue("postgres")
    )


@pytest.fixture
def empty(url: str) -> Iterator[Store]:
    store = Store.open(url)
    yield store
    store.close()


@pytest.fixture
def store(empty: Store) -> Store:
    empty.upgrade()
    return empty


def dag(dag_id: str = "d", **tasks: str) -> spec.DagSpec:
    """`b="a"` is a task b after a."""
    specs = (
        spec.TaskSpec(task_id=task_id, operator="python", upstream=tuple(names.split()), inputs=())
        for task_id, names in (tasks or {"a": "", "b": "a"}).items()
    )
    return spec.DagSpec(dag_id=dag_id, file=f"{dag_id}.py", tasks=tuple(specs))


def save(store: Store, *dags: spec.DagSpec, errors: tuple[loading.LoadError, ...] = ()) -> None:
    store.save_dags(loading.Loaded(dags, errors), at=AT)


def record_attempt(store: Store, run: rows.RunRow, task_id: str = "a") -> str:
    """Record an attempt of a task, as the scheduler does."""
    attempt_id = str(uuid4())
    with store.writing() as book:
        book.move_run(run.id, "running", at=AT)
        state = book.run(run.id)
        assert state is not None
        task = next(task for task in state.tasks if task.task_id == task_id)
        book.move_tasks([entries.TaskMove(task_instance=task.id, state="queued", attempts=task.attempts + 1)])
        book.insert_attempts(
            [
                entries.NewAttempt(
                    id=attempt_id,
                    task_instance=task.id,
                    number=task.attempts + 1,
                    side="celery",
                    queue="default",
                    rule="(no rule)",
                    message={"name": "routing.run"},
                    created_at=AT,
                    waiting_reason="waiting for a free worker slot",
                    wait_kind="queued",
                )
            ]
        )
    return attempt_id


# --- schema


def test_the_migrated_tables_are_the_models(store: Store) -> None:
    """Nothing is only in the models and nothing only in the migrations, the dispatcher's tables included."""
    wanted = sa.MetaData()
    for metadata in (models.Base.metadata, status_store.METADATA):
        for table in metadata.tables.values():
            table.to_metadata(wanted)
    with store.db.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert autogenerate.compare_metadata(context, wanted) == []


def test_an_empty_database_says_what_to_do(empty: Store) -> None:
    found = empty.check()
    assert (found.current, found.ok) == (None, False)
    assert "podyard db upgrade" in found.message
    with pytest.raises(store_errors.SchemaError, match="podyard db upgrade"):
        empty.require_schema()


def test_upgrade_twice_changes_nothing(store: Store) -> None:
    save(store, dag())
    store.upgrade()
    assert store.check().ok
    assert [row.dag_id for row in store.dags()] == ["d"]


def test_upgrades_at_once_do_not_disturb_each_other(url: str) -> None:
    stores = [Store.open(url) for _ in range(4)]
    failures: list[Exception] = []

    def upgrade(store: Store) -> None:
        try:
            store.upgrade()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=upgrade, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert stores[0].check().ok
    for store in stores:
        store.close()


def test_a_newer_database_is_refused_by_name(store: Store) -> None:
    with store.db.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999_from_the_future'"))
    assert "belongs to a newer Podyard" in store.check().message
    with pytest.raises(store_errors.SchemaError, match="9999_from_the_future"):
        store.upgrade()


def test_a_password_is_not_told() -> None:
    store = Store.open("postgresql+psycopg://me:secret@127.0.0.1:1/none")
    with pytest.raises(store_errors.DatabaseUnavailable) as caught:
        store.check()
    assert "secret" not in str(caught.value)
    assert "127.0.0.1:1" in str(caught.value)


def test_sqlite_runs_in_wal_mode_with_foreign_keys(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'x.db'}")
    store.upgrade()
    with store.db.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
    store.close()


def test_a_file_that_is_no_database_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("no database at all, but long enough to be looked at")
    store = Store.open(f"sqlite:///{tmp_path / 'x.db'}")
    with pytest.raises(store_errors.RecordError, match=r"x\.db is not a database: set database\.url"):
        store.check()


# --- DAGs


def test_a_dag_keeps_its_version_until_it_changes(store: Store) -> None:
    save(store, dag())
    first = store.dag("d")
    save(store, dag())
    assert store.dag("d") == first
    save(store, dag(a="", b="a", c="b"))
    second = store.dag("d")
    assert first is not None
    assert second is not None
    assert second.version != first.version
    assert second.task_count == 3


def test_a_dag_that_is_gone_becomes_inactive_but_not_because_the_folder_is(store: Store) -> None:
    save(store, dag("d"), dag("e"))
    save(store, errors=(loading.LoadError("", None, "the folder is away"),))
    assert [row.is_active for row in store.dags()] == [True, True]
    save(store, dag("d"), errors=(loading.LoadError("e.py", 3, "SyntaxError"),))
    assert [(row.dag_id, row.is_active) for row in store.dags()] == [("d", True), ("e", False)]
    assert [(e.file, e.line, e.message) for e in store.dag_errors()] == [("e.py", 3, "SyntaxError")]
    with pytest.raises(store_errors.RecordError, match="not in the DAG folder any more"):
        store.create_run("e", at=AT)


# --- runs


def test_a_run_has_all_tasks_from_the_start(store: Store) -> None:
    save(store, dag())
    run = store.create_run("d", conf={"x": 1}, at=AT)
    assert run.run_id == "manual__2026-01-02T03:04:05.000678+00:00"
    assert (run.state, run.conf, run.logical_date, run.task_states) == ("queued", {"x": 1}, AT, {"none": 2})
    assert [(task.task_id, task.state, task.operator) for task in store.tasks(run.run_id)] == [
        ("a", "none", "python"),
        ("b", "none", "python"),
    ]
    assert store.runs() == [run]
    assert store.run(run.run_id) == run


def test_run_ids(store: Store) -> None:
    save(store, dag("d"), dag("e"))
    first = store.create_run("d", at=AT)
    assert store.create_run("d", at=AT).run_id.startswith(f"{first.run_id}_")
    with pytest.raises(store_errors.RecordError, match="has a run 'mine' already"):
        [store.create_run("d", run_id="mine", at=AT) for _ in range(2)]
    store.create_run("e", run_id="mine", at=AT)
    with pytest.raises(store_errors.RecordError, match="several DAGs"):
        store.run("mine")
    found = store.run("mine", dag_id="e")
    assert found is not None
    assert found.dag_id == "e"


def test_an_unknown_dag_names_the_known_ones(store: Store) -> None:
    save(store, dag("etl"))
    with pytest.raises(store_errors.RecordError, match="known: etl"):
        store.create_run("elt", at=AT)


def test_a_run_keeps_the_version_that_it_started_with(store: Store) -> None:
    save(store, dag(a=""))
    run = store.create_run("d", at=AT)
    save(store, dag(a="", b="", c=""))
    assert [task.task_id for task in store.tasks(run.run_id)] == ["a"]


def test_cancelling_ends_run_and_tasks_once(store: Store) -> None:
    save(store, dag())
    run = store.create_run("d", at=AT)
    attempt = record_attempt(store, run)
    assert store.cancel_run(run.run_id, at=AT) is True
    assert store.cancel_run(run.run_id, at=AT) is False
    assert {task.state for task in store.tasks(run.run_id)} == {"cancelled"}
    with store.reading() as book:
        [waiting] = book.open_attempts(after="", limit=10, ended_before=AT)
    assert (waiting.id, waiting.is_unwanted) == (attempt, True)
    with pytest.raises(store_errors.RecordError, match="no run 'other'"):
        store.cancel_run("other", at=AT)


# --- guards


def test_a_move_that_the_table_does_not_know_keeps_nothing_of_its_transaction(store: Store) -> None:
    save(store, dag())
    run = store.create_run("d", at=AT)
    record_attempt(store, run)
    with store.reading() as book:
        state = book.run(run.id)
    assert state is not None
    first, second = state.tasks
    moves = [
        entries.TaskMove(task_instance=first.id, state="running"),
        entries.TaskMove(task_instance=second.id, state="running"),
    ]
    with pytest.raises(store_errors.Conflict, match="1 of 2 rows"), store.writing() as book:
        book.move_tasks(moves)
    assert [task.state for task in store.tasks(run.run_id)] == ["queued", "none"]


def test_an_attempt_keeps_its_verdict(store: Store) -> None:
    save(store, dag())
    attempt = record_attempt(store, store.create_run("d", at=AT))
    with store.writing() as book:
        [row] = book.attempts([attempt])
        done = replace(row.facts, state="succeeded", ended_at=AT, started_at=AT - timedelta(seconds=2), runtime_s=2.0)
        book.save_facts([(attempt, "recorded", done)])
    with pytest.raises(store_errors.Conflict), store.writing() as book:
        book.save_facts([(attempt, "recorded", replace(done, state="failed"))])
    found = store.attempt(attempt)
    assert found is not None
    assert (found.state, found.runtime_s, found.ended_at, found.waiting_reason) == ("succeeded", 2.0, AT, None)


def test_sending_is_counted_and_takes_no_state_back(store: Store) -> None:
    save(store, dag())
    attempt = record_attempt(store, store.create_run("d", at=AT))
    with store.writing() as book:
        assert [one.id for one in book.unsent(before=AT, limit=5)] == [attempt]
        book.mark_sent([attempt], at=AT)
        [row] = book.attempts([attempt])
        book.save_facts([(attempt, "sent", replace(row.facts, state="running"))])
        book.mark_sent([attempt], at=AT)
        assert book.unsent(before=AT, limit=5) == []
    found = store.attempt(attempt)
    assert found is not None
    assert (found.state, found.sends) == ("running", 2)


def test_two_writers_wait_for_each_other(store: Store) -> None:
    """A transaction that reads and then writes cannot fail because another one wrote in between."""
    save(store, dag())
    run = store.create_run("d", at=AT)
    failures: list[Exception] = []

    def pause_often() -> None:
        try:
            for number in range(20):
                store.pause("d", number % 2 == 0)
                with store.writing() as book:
                    book.run(run.id)
                    book.take("scheduler", "me", lease_s=1, now=AT)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=pause_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []


# --- the lease


def test_a_lease_has_one_holder_until_it_is_over_or_given_back(store: Store) -> None:
    now = datetime.now(UTC)
    with store.writing() as book:
        assert book.take("scheduler", "one", lease_s=60, now=now) is None
        assert book.take("scheduler", "one", lease_s=60, now=now) is None
        assert book.take("scheduler", "two", lease_s=60, now=now) == "one"
        book.end_lease("scheduler", "one")
        assert book.take("scheduler", "two", lease_s=-1, now=now) is None
        assert book.take("scheduler", "three", lease_s=60, now=now + timedelta(seconds=1)) is None
    with pytest.raises(store_errors.LeaseLost), store.writing() as book:
        book.hold("scheduler", "two", lease_s=60, now=now)


# --- odd values


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "漢字 \U0001f600", "", "'; DROP TABLE dag; --", "x" * 100_000])
def test_any_text_is_kept_readable(store: Store, text: str) -> None:
    save(store, errors=(loading.LoadError("f.py", 1, text),))
    [found] = store.dag_errors()
    assert found.message == text.replace("\0", "\\x00").replace("\ud800", "\\ud800")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=json_values)
def test_json_comes_back_as_it_went_in(store: Store, value: object) -> None:
    """NUL and lone surrogates inside JSON, too, on both databases."""
    save(store, dag())
    run = store.create_run("d", run_id=str(uuid4()), conf={"value": value}, at=AT)
    found = store.run(run.run_id)
    assert found is not None
    assert found.conf == {"value": value}


def test_what_json_does_not_have_becomes_a_word() -> None:
    assert columns.dumps({"x": [float("nan"), float("inf"), 1.5]}) == '{"x":["nan","inf",1.5]}'


# --- explain


def test_explain_names_what_it_waits_for(store: Store) -> None:
    save(store, dag())
    run = store.create_run("d", at=AT)
    assert "its run has not started" in store.explain(run.run_id, "a", at=AT).lines[1]
    attempt = record_attempt(store, run)
    with store.writing() as book:
        book.mark_sent([attempt], at=AT)
    later = AT + timedelta(seconds=90)
    assert store.explain(run.run_id, "a", at=later).lines[1] == (
        "what happens: no worker consumes the queue 'default' (celery); it has waited for 90 s"
    )
    waits = store.explain(run.run_id, "b", at=later).lines[1]
    assert waits == "what happens: it waits for a (trigger rule all_success)"
    consumer = rows.ConsumerRow(queue="default", worker="w@h", pool="prefork", seen_at=later)
    store.save_presence(consumers=[consumer], processes=[], since=AT)
    assert store.consumers() == [consumer]
    assert (
        store.explain(run.run_id, "a", at=later).lines[1]
        == "what happens: it waits for its turn in its queue, for 90 s: waiting for a free worker slot"
    )
    with pytest.raises(store_errors.RecordError, match="has no task 'z'"):
        store.explain(run.run_id, "z", at=AT)


def test_explain_tells_of_the_pod(store: Store, url: str) -> None:
    save(store, dag())
    run = store.create_run("d", at=AT)
    attempt = record_attempt(store, run)
    pods = status_store.PodStore(url)
    pods.save(
        [
            status_store.PodRow(
                attempt_id=attempt, retries=0, deployment="default", name="p-1", namespace="ns", queue="default",
                task="routing.run", owner="o", phase="Pending", reason="Unschedulable", updated_at=AT,
            )
        ]
    )  # fmt: skip
    pods.close()
    assert "its pod p-1 in ns is Pending (Unschedulable)" in store.explain(run.run_id, "a", at=AT).lines


def test_what_a_task_learned_and_why_an_attempt_failed_are_kept(store: Store) -> None:
    """A move that says nothing of lessons leaves them; a reader finds what the message carried."""
    save(store, dag())
    run = store.create_run("d", at=AT)
    attempt = record_attempt(store, run)
    learned = {"growths": 1, "memory_limit": "768Mi"}
    told = {"explanation": "größer\0", "what_to_do": "more", "node": "n1"}
    with store.writing() as book:
        (before,) = book.attempts([attempt])
        assert (before.facts.diagnosis, _lessons_of(book, run)) == (None, None)
        facts = replace(before.facts, state="failed", diagnosis=told)
        book.save_facts([(attempt, before.facts.state, facts)])
        task = before.task_instance
        book.move_tasks([entries.TaskMove(task_instance=task, state="up_for_retry", lessons=learned)])
        book.move_tasks([entries.TaskMove(task_instance=task, state="queued", attempts=2)])
        new = entries.NewAttempt(
            id=str(uuid4()), task_instance=task, number=2, side="kubernetes", queue="q", rule="q", created_at=AT,
            message={"name": "dispatcher.pod", "headers": {"podyard": {"lessons": learned}}}, waiting_reason=None,
            wait_kind=None,
        )  # fmt: skip
        book.insert_attempts([new])
    with store.reading() as book:
        assert _lessons_of(book, run) == learned
    first, second = store.attempts(run.run_id, "a")
    assert (first.diagnosis, first.lessons) == (told, None)
    assert (second.diagnosis, second.lessons) == (None, learned)


def _lessons_of(book: ledger.Ledger, run: rows.RunRow) -> object:
    state = book.run(run.id)
    assert state is not None
    return next(task.lessons for task in state.tasks if task.task_id == "a")


# --- waits


@pytest.mark.parametrize("words", ["niemand liest die Queue 'default'", "waiting for a free worker slot", ""])
def test_a_wait_is_what_its_kind_says_whatever_the_words(store: Store, words: str) -> None:
    """Words are for people: they may change, and a queue may be called so that they read like another wait."""
    save(store, dag(a=""))
    run = store.create_run("d", at=AT)
    attempt = record_attempt(store, run)
    late = AT + timedelta(seconds=5)
    with store.writing() as book:
        book.mark_sent([attempt], at=AT)
        facts = {"side": "celery", "queue": "default", "at": AT, "at_deadline": "fail", "deadline_at": AT}
        assert book.set_waiting_reason(kind="consumer", reason=words, **facts) == 1
        assert book.set_waiting_reason(kind="consumer", reason="other words", **facts) == 0, "it waits for the same"
        (overdue,) = book.overdue(now=late, limit=5)
    assert (overdue.id, overdue.wait_kind, overdue.waiting_reason) == (attempt, "consumer", words)
    assert store.explain(run.run_id, "a", at=late).wait.kind == "consumer"  # type: ignore[union-attr]
    with store.writing() as book:
        assert book.set_waiting_reason(kind="queued", reason="no worker consumes the queue 'x'", **facts) == 1
    assert store.explain(run.run_id, "a", at=late).wait.kind == "queued"  # type: ignore[union-attr]


def test_waits_of_the_version_before_get_their_kinds(url: str) -> None:
    """The migration reads the words once; what has ended has no wait, and a pod's is read from the pod's row."""
    store = Store.open(url)
    config = schema._config()
    words = {
        "a": ("recorded", "its message is not sent yet: the broker or the scheduler is away", "sending"),
        "b": ("sent", "no dispatcher consumes the queue 'waiting for x'", "consumer"),
        "c": ("sent", "waiting for a free worker slot", "queued"),
        "d": ("sent", "its pod is Pending: Unschedulable", None),
        "e": ("succeeded", "waiting for the dispatcher", None),
        "f": ("sent", None, None),
    }
    store.db.make_folder()
    with store.db.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0006_diagnoses")
    plain = sa.create_engine(url)  # the rows around an attempt do not matter: no foreign keys here
    with plain.begin() as connection:
        if not store.db.is_sqlite:
            connection.execute(sa.text("SET session_replication_role = replica"))
        insert = sa.text(
            "INSERT INTO attempt (id, task_instance, number, side, queue, rule, message, state, waiting_reason,"
            " created_at, sends, evidence)"
            " VALUES (:id, :n, 1, 'celery', 'q', 'r', '{}', :state, :reason, '2026-01-02 03:04:05', 0, '[]')"
        )
        for number, (key, (state, reason, _)) in enumerate(words.items()):
            connection.execute(insert, {"id": key, "n": number, "state": state, "reason": reason})
    plain.dispose()
    store.upgrade()
    with store.db.read() as connection:
        found = {row.id: row.wait_kind for row in connection.execute(sa.text("SELECT id, wait_kind FROM attempt"))}
    assert found == {key: kind for key, (_, _, kind) in words.items()}
    store.close()


def test_pods_of_the_version_before_that_have_ended_are_taken_as_reported(url: str) -> None:
    """Those that had not are still looked for; the table that nobody writes goes."""
    store = Store.open(url)
    config = schema._config()
    store.db.make_folder()
    with store.db.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0007_wait_kinds")
    phases = ("Waiting", "Pending", "Running", "Unknown", "Succeeded", "Failed", "Lost", "Revoked")
    with store.db.write() as connection:
        for phase in phases:
            connection.execute(
                sa.text(
                    "INSERT INTO pod (attempt_id, retries, deployment, name, namespace, queue, task, owner, phase,"
                    " updated_at) VALUES (:id, 0, 'd', 'n', 'default', 'q', 't', 'o', :id, '2026-01-02 03:04:05+00:00')"
                ),
                {"id": phase},
            )
    store.upgrade()
    pods = status_store.PodStore(url)
    assert {row.attempt_id for row in pods.open_rows(deployment="d", before=AT)} == set(phases[:4])
    pods.close()
    with store.db.read() as connection:
        assert not sa.inspect(connection).has_table("watch_checkpoint")
    store.close()


@pytest.mark.parametrize("run_id", ["mine", None])
def test_runs_that_are_made_at_once_have_ids_of_their_own(store: Store, run_id: str | None) -> None:
    """Of callers with one id the first gets its run, and the others are told in words; without an id each gets one."""
    save(store, dag())

    def create(_: int) -> str:
        try:
            return store.create_run("d", run_id=run_id, at=AT).run_id
        except store_errors.RecordError as error:
            return str(error)

    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(create, range(8)))
    if run_id is None:
        assert len(set(answers)) == len(store.runs("d")) == 8
    else:
        assert sorted(answers) == [*["DAG 'd' has a run 'mine' already: choose another run id"] * 7, "mine"]


# --- size


def test_questions_stay_quick_with_many_rows(store: Store) -> None:
    """50,000 ended attempts do not slow the scheduler's questions: each uses an index."""
    save(store, dag(a=""))
    run = store.create_run("d", at=AT)
    with store.writing() as book:
        connection = book._connection
        count = 50_000
        tasks = [{"run": run.id, "task_id": f"x{n}", "state": "success"} for n in range(count)]
        connection.execute(sa.insert(tables.TASK), tasks)
        ids = list(connection.scalars(sa.select(tables.TASK.c.id).where(tables.TASK.c.state == "success")))
        fixed = {"number": 1, "side": "celery", "queue": "q", "rule": "r", "message": {}, "state": "succeeded"}
        made = [{**fixed, "id": f"id-{n}", "task_instance": n, "created_at": AT, "evidence": []} for n in ids]
        connection.execute(sa.insert(tables.ATTEMPT), made)
    if store.db.is_sqlite:
        return _assert_indexes(store)
    with store.db.write() as connection:
        connection.execute(sa.text("ANALYZE"))
    return _assert_indexes(store)


def _assert_indexes(store: Store) -> None:
    explain = "EXPLAIN QUERY PLAN " if store.db.is_sqlite else "EXPLAIN "
    scan = ("SCAN attempt", "SCAN task_instance") if store.db.is_sqlite else ("Seq Scan on attempt", "Seq Scan on task")
    seen: list[str] = []

    def note(_c: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        seen.append(statement)
        arguments.append(parameters)

    arguments: list[object] = []
    sa.event.listen(store.db.engine, "before_cursor_execute", note)
    with store.reading() as book:
        book.open_attempts(after="", limit=500, ended_before=AT)
        book.count_open()
        book.unsent(before=AT, limit=500)
        book.due_retries(now=AT, limit=500)
        book.next_retry_at()
        book.waiting_queues()
    sa.event.remove(store.db.engine, "before_cursor_execute", note)
    with store.db.read() as connection:
        for statement, parameters in zip(list(seen), list(arguments), strict=True):
            plan = "\n".join(str(row) for row in connection.exec_driver_sql(explain + statement, parameters))  # type: ignore[arg-type]
            assert not any(word in plan for word in scan), f"{statement}\n{plan}"


def test_sqlite_file_is_readable_by_plain_sql(tmp_path: Path) -> None:
    """People look into the database: times are plain text, JSON is JSON."""
    store = Store.open(f"sqlite:///{tmp_path / 'x.db'}")
    store.upgrade()
    save(store, dag())
    store.create_run("d", conf={"k": [1]}, at=AT)
    store.close()
    with sqlite3.connect(tmp_path / "x.db") as connection:
        row = connection.execute("SELECT state, logical_date, conf FROM dag_run").fetchone()
    assert row == ("queued", "2026-01-02 03:04:05.000678", '{"k":[1]}')
