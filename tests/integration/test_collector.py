"""The result backend, the collector and the sweeper on a real Valkey server."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery

from dispatcher.protocol import launch_claim
from routing.results import backend, collector, reported, sweeper
from routing.store import entries
from routing.worker import celery_app
from tests import parts

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def app(valkey: parts.ValkeyDatabase) -> Iterator[Celery]:
    app = Celery("test", broker=valkey.url, set_as_current=False)
    app.conf.update(
        result_backend=celery_app.result_backend_url(valkey.url),
        result_backend_always_retry=True,
        podyard_deployment="test",
        result_expires=60,
    )
    yield app
    app.close()


@pytest.fixture
def reporting(app: Celery) -> backend.ReportingBackend:
    return app.backend


@pytest.fixture
def collecting(reporting: backend.ReportingBackend) -> collector.Collector:
    """Of a server that has been whole since before anything was sent."""
    collecting = collector.Collector(reporting)
    collecting.complete_since(now=NOW - timedelta(seconds=1))
    return collecting


def other_worker(app: Celery) -> backend.ReportingBackend:
    """The backend as another worker has it."""
    return backend.ReportingBackend(app=app, url=app.conf.result_backend.partition("+")[2])


def test_a_result_is_reported_and_found(reporting: backend.ReportingBackend, collecting: collector.Collector) -> None:
    assert reporting.claim("a", "worker:1")
    reporting.store_result("a", {"n": 1}, "SUCCESS")
    start, end = collecting.listen(1, now=NOW).outcomes
    assert isinstance(start, reported.StartReport)
    assert isinstance(end, reported.EndReport)
    assert (end.verdict, end.value, end.started) == ("succeeded", {"n": 1}, start)
    assert list(collecting.listen(0, now=NOW).outcomes) == []


def test_celery_reads_the_result_as_usual(app: Celery, reporting: backend.ReportingBackend) -> None:
    reporting.store_result("a", 42, "SUCCESS")
    assert app.AsyncResult("a").state == "SUCCESS"
    assert app.AsyncResult("a").get(timeout=5) == 42


def test_the_first_verdict_stands_in_the_backend_too(
    app: Celery, reporting: backend.ReportingBackend, collecting: collector.Collector
) -> None:
    reporting.store_result("a", 1, "SUCCESS")
    reporting.store_result("a", Exception("terminated"), "REVOKED")
    assert app.AsyncResult("a").state == "SUCCESS"
    assert [type(one).__name__ for one in collecting.listen(1, now=NOW).outcomes] == ["EndReport"]


def test_one_delivery_of_many_gets_the_claim(app: Celery, reporting: backend.ReportingBackend) -> None:
    others = [other_worker(app) for _ in range(5)]
    assert [one.claim("a", "w") for one in [reporting, *others, reporting]] == [True] + [False] * 6


def test_a_blocked_attempt_cannot_be_claimed(
    reporting: backend.ReportingBackend, collecting: collector.Collector
) -> None:
    assert collecting.block("a")
    assert collecting.block("a")
    assert not reporting.claim("a", "w")
    reporting.claim("b", "w")
    assert not collecting.block("b")
    assert collecting.look_up(["a", "b"], now=NOW).blocked == {"a"}


def test_a_pods_start_is_reported_with_its_pod(
    reporting: backend.ReportingBackend, collecting: collector.Collector
) -> None:
    """As the dispatcher calls it: nothing is stored, the start is reported."""
    meta = {"hostname": "dispatcher@h", "pid": "p-1", "pod": "p-1", "started_at": "2026-01-01T00:00:00+00:00"}
    reporting.store_result("a", meta, "STARTED")
    assert collecting.listen(1, now=NOW).outcomes == [
        reported.StartReport(attempt_id="a", at=NOW, host="dispatcher@h", pod="p-1")
    ]
    assert reporting.client.keys("celery-task-meta-*") == []


def test_a_start_that_the_ending_process_does_not_know_is_taken_from_the_claim(
    app: Celery, collecting: collector.Collector
) -> None:
    """A killed child's result is stored by its worker's main process; the child's claim says when it began."""
    other_worker(app).claim("a", "w")
    collecting.listen(1, now=NOW)
    app.backend.store_result("a", Exception("gone"), "FAILURE")
    start, end = collecting.listen(1, now=NOW).outcomes
    assert (type(start), type(end)) == (reported.StartReport, reported.EndReport)


def test_a_wake_up_is_heard_at_once(app: Celery, collecting: collector.Collector) -> None:
    backend.wake(app)
    assert collecting.listen(5, now=NOW).is_wake


def test_rubbish_on_the_list_is_skipped(reporting: backend.ReportingBackend, collecting: collector.Collector) -> None:
    rubbish: list[Any] = [b"\xff\x00", "[1]", "{", '{"kind":"ended"}', '{"kind":"started","id":7}', "[" * 100_000]
    reporting.client.rpush(reporting.keys.reports, *rubbish)
    reporting.store_result("a", 1, "SUCCESS")
    [end] = collecting.listen(1, now=NOW).outcomes
    assert end.attempt_id == "a"


@pytest.mark.parametrize(
    "text", [b"{", b"[1]", b"\xff", b"[" * 100_000, b'{"status":"SUCCESS","result":' + b"1" * 5000 + b"}"]
)
def test_a_result_that_cannot_be_read_is_its_own_failure_only(
    reporting: backend.ReportingBackend, collecting: collector.Collector, text: bytes
) -> None:
    reporting.store_result("good", 1, "SUCCESS")
    reporting.client.set(reporting.get_key_for_task("bad"), text)
    reporting.client.rpush(reporting.keys.reports, json.dumps({"kind": "ended", "id": "bad"}))
    verdicts = {one.attempt_id: one for one in collecting.listen(1, now=NOW).outcomes}
    assert {one: end.verdict for one, end in verdicts.items() if isinstance(end, reported.EndReport)} == {
        "good": "succeeded",
        "bad": "failed",
    }
    bad = verdicts["bad"]
    assert isinstance(bad, reported.EndReport)
    assert bad.reason == "UnreadableResult"


def test_a_lost_report_is_made_good_by_the_sweep(
    reporting: backend.ReportingBackend, collecting: collector.Collector
) -> None:
    reporting.claim("a", "w")
    reporting.store_result("a", 1, "SUCCESS")
    reporting.claim("b", "w")
    reporting.client.delete(reporting.keys.reports)
    seen = collecting.look_up(["a", "b", "c"], now=NOW)
    assert [(one.attempt_id, type(one).__name__) for one in seen.outcomes] == [("a", "EndReport"), ("b", "StartReport")]
    assert seen.holders == {"b": reporting.instance}


def test_large_results_are_not_read_all_at_once(
    reporting: backend.ReportingBackend, collecting: collector.Collector
) -> None:
    for number in range(20):
        reporting.store_result(f"a{number}", "x" * 1_000_000, "SUCCESS")
    reporting.client.config_resetstat()
    assert len(collecting.listen(1, now=NOW).outcomes) == 20
    reads = reporting.client.info("commandstats")["cmdstat_mget"]["calls"]
    assert reads == 3  # two for 20 MB of results, one for claims


# --- the sweeper


def pulse_of(worker: backend.ReportingBackend) -> backend.Heart:
    return backend.Heart(worker.new_client(), keys=worker.keys, instance=worker.instance, lease_s=20)


def waiting(attempt_id: str, **fields: Any) -> entries.Waiting:
    defaults: dict[str, Any] = {"state": "sent", "side": "celery", "queue": "q", "sent_at": NOW, "sends": 1}
    defaults |= {"is_unwanted": False, "has_pod": False, "is_launched": False, "is_end_seen": False}
    return entries.Waiting(id=attempt_id, **{**defaults, **fields})


def inspect(
    sweeping: sweeper.Sweeper, *rows: entries.Waiting, now_mono_s: float = 0, after_s: float = 0, backlog: int = 0
) -> sweeper.Findings:
    return sweeping.inspect(
        rows, now=NOW + timedelta(seconds=after_s), now_mono_s=now_mono_s, backlog=lambda _queue: backlog
    )


def test_attempts_of_a_worker_without_a_heartbeat_are_lost(
    reporting: backend.ReportingBackend, collecting: collector.Collector
) -> None:
    """Not at once: a worker that lost its connection has time to come back."""
    sweeping = sweeper.Sweeper(collecting, lost_after_s=10)
    reporting.claim("a", "w")
    row = waiting("a", state="running")
    assert inspect(sweeping, row, now_mono_s=0).outcomes == []
    assert inspect(sweeping, row, now_mono_s=9).outcomes == []
    [end] = inspect(sweeping, row, now_mono_s=11).outcomes
    assert isinstance(end, reported.EndReport)
    assert (end.attempt_id, end.verdict, end.cause) == ("a", "lost", "infrastructure")


def test_a_claim_that_nobody_reported_is_a_start(
    reporting: backend.ReportingBackend, collecting: collector.Collector
) -> None:
    reporting.claim("a", "w")
    [start] = inspect(sweeper.Sweeper(collecting, lost_after_s=10), waiting("a")).outcomes
    assert isinstance(start, reported.StartReport)


def test_a_pulse_that_comes_back_saves_its_attempts(
    reporting: backend.ReportingBackend, collecting: collector.Collector
) -> None:
    sweeping = sweeper.Sweeper(collecting, lost_after_s=10)
    reporting.claim("a", "w")
    row = waiting("a", state="running")
    inspect(sweeping, row, now_mono_s=0)
    heart = pulse_of(reporting)
    heart.beat()
    assert inspect(sweeping, row, now_mono_s=11).outcomes == []
    heart.end()
    assert inspect(sweeping, row, now_mono_s=12).outcomes == []


@pytest.mark.parametrize(
    ("after_s", "sends", "backlog", "wanted"),
    [(30, 1, 0, []), (61, 1, 0, ["a"]), (61, 1, 3, []), (61, 2, 0, []), (121, 2, 0, ["a"])],
)
def test_a_message_that_nobody_has_is_sent_again_with_patience(
    collecting: collector.Collector, after_s: float, sends: int, backlog: int, wanted: list[str]
) -> None:
    found = inspect(
        sweeper.Sweeper(collecting, lost_after_s=10), waiting("a", sends=sends), after_s=after_s, backlog=backlog
    )
    assert found.resend == wanted


def test_after_an_outage_a_message_that_nobody_has_is_sent_again_soon(collecting: collector.Collector) -> None:
    sweeping = sweeper.Sweeper(collecting, lost_after_s=10)
    sweeping.suspect(now=NOW + timedelta(seconds=2))
    assert inspect(sweeping, waiting("a"), after_s=8).resend == []
    assert inspect(sweeping, waiting("a"), after_s=10).resend == ["a"]
    again = waiting("a", sends=2, sent_at=NOW + timedelta(seconds=10))
    assert inspect(sweeping, again, after_s=20).resend == []


def test_b4_a_body_that_runs_is_not_sent_again_though_its_claim_and_its_report_are_lost(
    app: Celery, reporting: backend.ReportingBackend, collecting: collector.Collector
) -> None:
    """A broker that lost its last second may have lost the claim; the worker says again that the body runs."""
    worker = other_worker(app)
    worker.claim("a", "w")
    reporting.client.delete(reporting.keys.claim("a"), reporting.keys.reports)
    pulse_of(worker).beat(["a"])
    sweeping = sweeper.Sweeper(collecting, lost_after_s=10)
    sweeping.suspect(now=NOW + timedelta(seconds=2))
    assert inspect(sweeping, waiting("a"), after_s=10) == sweeper.Findings()
    reporting.client.delete(reporting.keys.body("a"))
    assert inspect(sweeping, waiting("a"), after_s=10).resend == ["a"]


def test_what_a_server_that_lost_its_data_does_not_know_is_not_run_again_under_its_id(
    app: Celery, reporting: backend.ReportingBackend, collecting: collector.Collector
) -> None:
    """Nobody can say whether it ran: no delivery may begin it any more, and the record says why."""
    worker = other_worker(app)
    worker.claim("a", "w")
    worker.store_result("a", 1, "SUCCESS")
    reporting.client.flushdb()
    sweeping = sweeper.Sweeper(collecting, lost_after_s=10)
    assert inspect(sweeping, waiting("a"), after_s=30) == sweeper.Findings()
    assert inspect(sweeping, waiting("a"), after_s=99, backlog=1) == sweeper.Findings()
    found = inspect(sweeping, waiting("a"), after_s=99)
    [end] = found.outcomes
    assert isinstance(end, reported.EndReport)
    assert (end.verdict, end.reason, end.cause) == ("lost", reported.EXPIRED, "infrastructure")
    assert found.resend == []
    assert not worker.claim("a", "w")
    later = waiting("b", sent_at=NOW + timedelta(seconds=100))
    assert inspect(sweeping, later, after_s=200).resend == ["b"]


def test_claims_say_nothing_of_what_is_older_than_they_get(collecting: collector.Collector) -> None:
    """A claim stands for two hours at least; a message that was sent earlier may have led to one that has expired."""
    sweeping = sweeper.Sweeper(collecting, lost_after_s=10)
    assert inspect(sweeping, waiting("a"), after_s=backend.CLAIM_MIN_S - 1).resend == ["a"]
    assert inspect(sweeping, waiting("a"), after_s=backend.CLAIM_MIN_S + 1).resend == []


def test_a_server_that_threw_keys_away_is_not_believed_of_what_was_before(
    own_valkey: parts.Valkey,
) -> None:
    """The marker itself may be among those that it kept."""
    app = Celery("test", broker=own_valkey.fresh().url, set_as_current=False)
    app.conf.update(result_backend=celery_app.result_backend_url(own_valkey.fresh().url), podyard_deployment="test")
    collecting, server = collector.Collector(app.backend), app.backend.client
    assert collecting.complete_since(now=NOW) == NOW
    assert collecting.complete_since(now=NOW + timedelta(seconds=5)) == NOW
    server.config_set("maxmemory-policy", "volatile-lru")
    server.config_set("maxmemory", int(server.info("memory")["used_memory"]) + 100_000)
    for number in range(100):
        server.set(f"noise:{number}", "x" * 10_000, ex=60)
    assert collecting.complete_since(now=NOW + timedelta(seconds=10)) == NOW + timedelta(seconds=10)
    server.config_set("maxmemory", 0)
    assert collecting.complete_since(now=NOW + timedelta(seconds=15)) == NOW + timedelta(seconds=10)
    app.close()


def test_a_result_that_is_gone_is_told_by_its_report(
    reporting: backend.ReportingBackend, collecting: collector.Collector
) -> None:
    reporting.store_result("a", 1, "SUCCESS")
    reporting.store_result("b", Exception("terminated"), "REVOKED")
    reporting.store_result("c", 3, "SUCCESS")
    app_results = [reporting.get_key_for_task(one) for one in ("a", "b")]
    reporting.client.delete(*app_results)
    heard = collecting.listen(1, now=NOW)
    assert [(one.attempt_id, one.verdict, one.reason) for one in heard.expired] == [
        ("a", "lost", "ResultExpired"),
        ("b", "revoked", "Revoked"),
    ]
    assert [one.attempt_id for one in heard.outcomes] == ["c"]


def test_a_claimed_attempt_whose_body_runs_no_more_and_has_no_result_does_not_run_for_ever(
    reporting: backend.ReportingBackend, collecting: collector.Collector
) -> None:
    """Its result alone was thrown away, and its worker lives."""
    reporting.claim("a", "w")
    heart, sweeping, row = (
        pulse_of(reporting),
        sweeper.Sweeper(collecting, lost_after_s=10),
        waiting("a", state="running"),
    )
    heart.beat(["a"])
    assert inspect(sweeping, row, now_mono_s=0) == sweeper.Findings()
    reporting.client.delete(reporting.keys.body("a"))
    assert inspect(sweeping, row, now_mono_s=20) == sweeper.Findings()
    assert inspect(sweeping, row, now_mono_s=49) == sweeper.Findings()
    [end] = inspect(sweeping, row, now_mono_s=52).outcomes
    assert isinstance(end, reported.EndReport)
    assert (end.verdict, end.reason) == ("lost", reported.EXPIRED)


def test_b4_a_running_attempt_whose_claim_and_result_are_lost_does_not_run_for_ever(
    app: Celery, reporting: backend.ReportingBackend, collecting: collector.Collector
) -> None:
    worker = other_worker(app)
    worker.claim("a", "w")
    reporting.client.flushdb()
    heart, sweeping, row = pulse_of(worker), sweeper.Sweeper(collecting, lost_after_s=10), waiting("a", state="running")
    assert inspect(sweeping, row, now_mono_s=0).outcomes == []
    heart.beat(["a"])
    assert inspect(sweeping, row, now_mono_s=31).outcomes == []
    reporting.client.delete(reporting.keys.body("a"))
    assert inspect(sweeping, row, now_mono_s=40).outcomes == []
    assert inspect(sweeping, waiting("pod", state="running", side="kubernetes"), now_mono_s=200).outcomes == []
    [end] = inspect(sweeping, row, now_mono_s=71).outcomes
    assert isinstance(end, reported.EndReport)
    assert (end.attempt_id, end.verdict, end.cause) == ("a", "lost", "infrastructure")


def test_b4_a_pod_that_ended_and_whose_result_is_lost_is_asked_for_and_gets_no_second_pod(
    reporting: backend.ReportingBackend, collecting: collector.Collector
) -> None:
    """A broker that lost its last data took claim and result along: the message is sent again, behind a claim."""
    row = waiting("a", state="running", side="kubernetes", has_pod=True, is_launched=True)
    sweeping = sweeper.Sweeper(collecting, lost_after_s=10)
    assert inspect(sweeping, row, after_s=999).resend == []
    assert inspect(sweeping, replace(row, is_end_seen=True), after_s=999).resend == ["a"]
    [(held, _, is_over)] = reporting.take_launches([("a", "mine", '{"token":"mine"}')])
    step = launch_claim.decide(launch_claim.Answer(held=held, has_outcome=is_over), place=(0, 0), was_ours=False)
    assert step.action == "look"


def test_an_attempt_with_a_pod_is_not_sent_again(collecting: collector.Collector) -> None:
    assert inspect(sweeper.Sweeper(collecting, lost_after_s=10), waiting("a", has_pod=True), after_s=999).resend == []


def test_an_unwanted_attempt_is_kept_from_starting_or_stopped(
    reporting: backend.ReportingBackend, collecting: collector.Collector
) -> None:
    reporting.claim("runs", "w")
    pulse_of(reporting).beat()
    rows = [waiting("waits", is_unwanted=True), waiting("runs", state="running", is_unwanted=True)]
    found = inspect(sweeper.Sweeper(collecting, lost_after_s=10), *rows)
    assert found.revoke == ["runs"]
    ends = [one for one in found.outcomes if isinstance(one, reported.EndReport)]
    assert [(one.attempt_id, one.verdict) for one in ends] == [("waits", "revoked")]
    assert not reporting.claim("waits", "w")


def test_an_unwanted_pod_is_revoked(collecting: collector.Collector) -> None:
    row = waiting("p", side="kubernetes", is_unwanted=True, has_pod=True, is_launched=True)
    assert inspect(sweeper.Sweeper(collecting, lost_after_s=10), row) == sweeper.Findings(revoke=["p"])


def test_an_unwanted_attempt_that_waits_for_a_pod_ends_and_gets_none(
    reporting: backend.ReportingBackend, collecting: collector.Collector
) -> None:
    """Whether a dispatcher lives to hear of it or not: its claim is blocked."""
    row = waiting("w", side="kubernetes", is_unwanted=True, has_pod=True)
    found = inspect(sweeper.Sweeper(collecting, lost_after_s=10), row)
    assert found.revoke == ["w"]
    assert [(one.attempt_id, one.verdict) for one in found.outcomes if isinstance(one, reported.EndReport)] == [
        ("w", "revoked")
    ]
    [(held, _, is_over)] = reporting.take_launches([("w", "token", '{"token":"token"}')])
    assert (held, is_over) == ('{"blocked":true}', False)


# --- launches of dispatchers


def test_a_launch_is_claimed_once_and_renewed_by_its_token(reporting: backend.ReportingBackend) -> None:
    """All that are wanted in one round trip; what stands there else is answered with its age."""
    first, second = '{"token":"token-1"}', '{"token":"token-2"}'
    assert reporting.take_launches([("a", "token-1", first), ("b", "token-1", first)]) == [(None, math.inf, False)] * 2
    assert reporting.take_launches([("a", "token-1", first)]) == [(None, math.inf, False)]
    [(held, age_s, is_over)] = reporting.take_launches([("a", "token-2", second)])
    assert held is not None
    assert json.loads(held)["launch"] == {"token": "token-1"}
    assert (age_s < 5, is_over) == (True, False)


def test_a_launch_of_what_has_ended_is_not_claimed(reporting: backend.ReportingBackend) -> None:
    """The outcome is looked for in the same call."""
    reporting.store_result("a", 1, "SUCCESS")
    assert reporting.take_launches([("a", "token-1", '{"token":"token-1"}')]) == [(None, math.inf, True)]
    assert reporting.client.get(reporting.keys.claim("a")) is None


def test_the_claim_of_a_launch_is_swapped_by_one_only(reporting: backend.ReportingBackend) -> None:
    """By all of it or by its token; not once there is an outcome."""
    reporting.take_launches([("a", "token-1", '{"token":"token-1"}'), ("b", "token-1", '{"token":"token-1"}')])
    [(held, _, _)] = reporting.take_launches([("a", "token-2", '{"token":"token-2"}')])
    assert held is not None
    assert reporting.swap_launch("a", held, '{"token":"token-2"}')
    assert not reporting.swap_launch("a", held, '{"token":"token-3"}')
    assert reporting.swap_launch("a", "token-2", None)
    assert reporting.client.get(reporting.keys.claim("a")) is None
    reporting.store_result("b", 1, "SUCCESS")
    assert not reporting.swap_launch("b", "token-1", '{"token":"token-2"}')


def test_a_launch_and_a_workers_body_exclude_each_other(
    reporting: backend.ReportingBackend, collecting: collector.Collector
) -> None:
    """They claim the same key. A launch is no start of the attempt: its pod tells that."""
    reporting.claim("body", "w")
    reporting.take_launches([("pod", "token-1", '{"token":"token-1"}')])
    [(held, _, _)] = reporting.take_launches([("body", "token-1", '{"token":"token-1"}')])
    assert held is not None
    assert json.loads(held)["holder"] == "w"
    assert not reporting.claim("pod", "w")
    assert not collecting.block("pod")
    seen = collecting.look_up(["pod"], now=NOW)
    assert (list(seen.outcomes), seen.holders, seen.blocked) == ([], {}, frozenset())


def test_a_unix_socket_is_a_result_backend_too() -> None:
    url = celery_app.result_backend_url("redis+socket:///run/valkey.sock?virtual_host=3")
    app = Celery("test", set_as_current=False)
    app.conf.result_backend = url
    assert isinstance(app.backend, backend.ReportingBackend)
    assert (app.backend.connparams["path"], app.backend.connparams["db"]) == ("/run/valkey.sock", 3)
