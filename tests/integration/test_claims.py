"""A claim before the create: what was asked for, and is gone without a word, runs no second time under its id.

Dispatchers of an application whose result backend knows claims, on a local cluster that takes faults. "Runs once" is
judged by the line that the body appends to a file, and by the creates that the API server counts.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.localcluster.faults import client
from routing.results import backend
from routing.worker import celery_app
from tests import parts
from tests.integration.yard_parts import Yard, ended_by, pods_of, runs

WAIT_S = 40


@pytest.fixture
def yard(
    tmp_path: Path, valkey: parts.ValkeyDatabase, faulty_cluster: parts.LocalCluster, deployment: str
) -> Iterator[Yard]:
    """No process yet; its result backend knows claims."""
    with Yard(
        folder=tmp_path,
        broker=valkey.url,
        kubeconfig=faulty_cluster.kubeconfig,
        deployment=deployment,
        results=celery_app.result_backend_url(valkey.url),
    ) as yard:
        yield yard


def creates(faults: client.Faults) -> int:
    return int(faults.stats()["requests"].get("pods", {}).get("create", 0))


def test_D3_a_pod_deleted_before_its_message_was_acknowledged_runs_no_second_time(
    yard: Yard, faults: client.Faults
) -> None:
    """The dispatcher is killed between create and acknowledgement, the pod deleted by hand, the message redelivered."""
    faults.fail("create", resource="pods", how="hang", done=True, times=1)
    first = yard.dispatcher()
    sent = yard.send("nap", 60)
    parts.eventually(lambda: runs(yard, sent.id) == 1, WAIT_S)
    yard.kill(first)
    faults.delete("*", grace_s=0)
    parts.eventually(lambda: not pods_of(yard), 10)

    yard.dispatcher()

    assert {"reason": "PodLost", "cause": "infrastructure"}.items() <= ended_by(sent).items()
    assert (runs(yard, sent.id), creates(faults)) == (1, 1)
    done = yard.send("add", 2, 3)
    parts.eventually(done.ready, WAIT_S)
    assert done.result == 5


def test_D3_a_pod_that_is_there_is_adopted_though_it_was_claimed_by_another(yard: Yard, faults: client.Faults) -> None:
    """Killed between create and acknowledgement: the redelivered message asks for no second pod."""
    faults.fail("create", resource="pods", how="hang", done=True, times=1)
    first = yard.dispatcher()
    sent = yard.send("nap", 5)
    parts.eventually(lambda: runs(yard, sent.id) == 1, WAIT_S)
    yard.kill(first)

    yard.dispatcher()

    parts.eventually(sent.ready, WAIT_S)
    assert sent.result == "slept"
    assert (runs(yard, sent.id), creates(faults)) == (1, 1)


def test_K2_a_pod_that_came_and_went_in_a_gap_of_the_watch_runs_no_second_time(
    yard: Yard, faults: client.Faults
) -> None:
    """The create worked though the caller saw a failure, and its events were lost: nobody can say that it never ran."""
    yard.dispatcher()
    unseen = faults.disturb("drop")
    faults.fail("create", 500, resource="pods", done=True, times=1)
    refused = faults.fail("create", 503, resource="pods")
    sent = yard.send("nap", 60)
    parts.eventually(lambda: runs(yard, sent.id) == 1, WAIT_S)
    faults.delete("*", grace_s=0)
    parts.eventually(lambda: not pods_of(yard), 10)
    faults.remove(unseen)
    lists = faults.stats()["requests"]["pods"]["list"]
    faults.expire_versions()
    parts.eventually(lambda: faults.stats()["requests"]["pods"]["list"] > lists, WAIT_S)
    faults.remove(refused)

    assert {"reason": "PodLost", "cause": "infrastructure"}.items() <= ended_by(sent).items()
    assert runs(yard, sent.id) == 1
    done = yard.send("add", 2, 3)
    parts.eventually(done.ready, WAIT_S)
    assert done.result == 5


def test_D2_what_a_quota_held_is_launched_by_the_next_dispatcher(yard: Yard, faults: client.Faults) -> None:
    """Killed while nothing had been created, by the server's own word: the claim was taken back, there is no doubt."""
    quota = faults.fail("create", 403, resource="pods")
    first = yard.dispatcher()
    sent = yard.send("add", 2, 3)
    parts.eventually(lambda: faults.hits(quota) > 0, WAIT_S)
    yard.kill(first)
    faults.remove(quota)

    yard.dispatcher()

    parts.eventually(sent.ready, WAIT_S)
    assert sent.result == 5
    assert runs(yard, sent.id) == 1


def test_B4_a_pod_whose_result_was_lost_with_the_brokers_data_runs_no_second_time(
    yard: Yard, faults: client.Faults, valkey: parts.ValkeyDatabase
) -> None:
    """Result, claim and pod are gone: a message that is sent again behind a claim of nobody is told to be lost."""
    yard.dispatcher()
    sent = yard.send("add", 2, 3)
    parts.eventually(sent.ready, WAIT_S)
    parts.eventually(lambda: not pods_of(yard), WAIT_S)
    with valkey.client() as server:
        server.delete(*(key for key in server.scan_iter() if sent.id.encode() in key))
    again = yard.client.AsyncResult(sent.id)
    assert not again.ready()

    yard.client.backend.doubt(sent.id)
    yard.send("add", 2, 3, task_id=sent.id)

    assert {"reason": "PodLost", "cause": "infrastructure"}.items() <= ended_by(again).items()
    assert (runs(yard, sent.id), creates(faults)) == (1, 1)


def test_a_warm_shutdown_leaves_no_doubt(yard: Yard, faults: client.Faults) -> None:
    """A create under way is waited for, and what had no turn is claimed no longer: the next dispatcher runs all."""
    slow = faults.delay("create", 1.0, resource="pods")
    first = yard.dispatcher(YARD_MAX_PODS="1")
    sent = [yard.send("add", 2, number) for number in range(3)]
    parts.eventually(lambda: faults.hits(slow) > 0, WAIT_S)
    parts.stop(first)
    faults.remove(slow)

    yard.dispatcher()

    parts.eventually(lambda: all(one.ready() for one in sent), WAIT_S)
    assert [(one.result, runs(yard, one.id)) for one in sent] == [(2, 1), (3, 1), (4, 1)]


def test_B15_what_was_cancelled_while_no_dispatcher_lived_gets_no_pod(yard: Yard, faults: client.Faults) -> None:
    """Its claim is blocked, as the sweep does: no pod, and no verdict beside the sweep's."""
    sent = yard.send("add", 2, 3)
    app = celery_app.Celery("scheduler", set_as_current=False)
    app.conf.update(result_backend=yard.results, podyard_deployment=yard.deployment)
    assert isinstance(app.backend, backend.ReportingBackend)
    assert app.backend.block(sent.id)

    yard.dispatcher()
    done = yard.send("add", 1, 1)
    parts.eventually(done.ready, WAIT_S)

    assert (sent.state, runs(yard, sent.id), creates(faults)) == ("PENDING", 0, 1)
    app.close()


def test_B12_while_the_result_backend_is_away_nothing_is_launched(
    tmp_path: Path, own_valkey: parts.Valkey, yard: Yard, faults: client.Faults
) -> None:
    """Claims wait with the reason, and each task runs once when it is back."""
    yard.results = celery_app.result_backend_url(own_valkey.fresh().url)
    yard.dispatcher()
    own_valkey.kill()
    sent = [yard.send("add", 2, number) for number in range(3)]
    inspect = yard.client.control.inspect([f"dispatcher@{yard.deployment}"], timeout=1)
    parts.eventually(lambda: "ResultBackendUnavailable" in (tmp_path / "dispatcher.log").read_text(), WAIT_S)
    assert inspect.ping()
    assert creates(faults) == 0

    own_valkey.restart()

    parts.eventually(lambda: all(runs(yard, one.id) == 1 for one in sent), WAIT_S)
    assert creates(faults) == len(sent)
