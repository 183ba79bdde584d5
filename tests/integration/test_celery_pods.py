"""What only pods have: per-task pods, credentials by choice, payloads in Secrets, and input that cannot be run."""

import json
import pickle
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord

import dispatcher
from dispatcher import errors
from tests import parts
from tests.integration import yard_parts
from tests.integration.shop_parts import PODS, WORKER, Shop
from tests.integration.yard_parts import failure_of, pods_of

WAIT_S = 40
HIDDEN, OWN, OLD = "hidden", "own", "old"
"""Queues of this dispatcher whose pods are made in ways of their own."""


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory,
    valkey_server: parts.Valkey,
    local_cluster_server: parts.LocalCluster,
) -> Iterator[Shop]:
    """The shop by our own command, whose queues differ in payload and credentials; and a prefork worker."""
    folder = tmp_path_factory.mktemp("shop")
    shop = Shop(
        folder=folder,
        broker=valkey_server.fresh().url,
        kubeconfig=local_cluster_server.kubeconfig,
        deployment="shop-pods",
    )
    (folder / "podyard.toml").write_text(
        f"""
[queues.{HIDDEN}]
side = "kubernetes"
payload = "secret"
[queues.{OWN}]
side = "kubernetes"
credentials = "inherit"
credentials_secret = "shop-settings"
[queues.{OLD}]
side = "kubernetes"
"""
    )
    settings = {"SHOP_BROKER": shop.broker}
    yard_parts.api_call(
        shop.kubeconfig,
        "/api/v1/namespaces/default/secrets",
        method="POST",
        body={"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "shop-settings"}, "stringData": settings},
    )
    env = {
        f"PODYARD_QUEUES__{queue.upper()}__ENV": shop.pods_env(**more)
        for queue, more in {HIDDEN: {}, OWN: {}, PODS: {}, OLD: {"SHOP_OLD": "1"}}.items()
    }
    try:
        pickle_accepted = {"SHOP_PICKLE": "1", "C_FORCE_ROOT": "1"}  # which Celery refuses to run as root otherwise
        shop.podyard("--config", str(folder / "podyard.toml"), **env, **pickle_accepted)
        shop.worker()
        yield shop
    finally:
        shop.stop()


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self._file,)


def value_of(result: Any) -> Any:
    """The value with which a task ended."""
    parts.eventually(lambda: result.state in ("FAILURE", "SUCCESS"), WAIT_S, what=f"{result.id} is final")
    assert result.state == "SUCCESS", (result.result, result.traceback)
    return result.result


def spec_while(shop: Shop, result: Any) -> dict[str, Any]:
    """The pod of a task that runs."""

    def pod() -> dict[str, Any] | None:
        found = pods_of(shop).values()
        return next(
            (pod for pod in found if pod["metadata"]["annotations"]["podyard.dev/attempt-id"] == result.id), None
        )

    return parts.eventually(pod, WAIT_S)


class TestWishes:
    """What a task and a call ask of their pod."""

    def test_a_call_asks_for_its_pod_by_a_helper(self, shop: Shop) -> None:
        """`**on_pod(...)`: queue and header at once."""
        override = {"spec": {"containers": [{"env": [{"name": "COLOUR", "value": "blue"}]}]}}
        options = dispatcher.on_pod(pod_override=override, name="blue thing", labels={"team": "Größe & Co"})
        sent = shop.client.send_task("tests.apps.behaviours.environment", args=["COLOUR"], **options)

        assert value_of(sent) == {"COLOUR": "blue"}

    def test_a_wrong_override_fails_at_the_caller(self) -> None:
        """The path is named before anything is sent."""
        with pytest.raises(errors.InvalidOverride, match=r"spec\.containers\[0\]\.imagge"):
            dispatcher.on_pod(pod_override={"spec": {"containers": [{"imagge": "x"}]}})

    def test_a_tasks_own_override_is_laid_under_the_calls(self, shop: Shop) -> None:
        """`@app.task(pod_override=…)`; the call wins where both say something."""
        task = "tests.apps.behaviours.dressed"
        own = shop.client.send_task(task, queue=PODS)
        call = {"spec": {"containers": [{"env": [{"name": "COLOUR", "value": "green"}]}]}}
        both = shop.client.send_task(task, **dispatcher.on_pod(pod_override=call))

        assert value_of(own) == {"COLOUR": "red", "SIZE": "L"}
        assert value_of(both) == {"COLOUR": "green", "SIZE": "L"}

    def test_a_retry_keeps_what_its_call_asked_for(self, shop: Shop) -> None:
        """The header travels with the retry."""
        call = {"spec": {"containers": [{"env": [{"name": "COLOUR", "value": "green"}]}]}}
        sent = shop.client.send_task("tests.apps.behaviours.dressed_twice", **dispatcher.on_pod(pod_override=call))

        assert value_of(sent) == [1, "green"]

    def test_the_sample_shop_routes_by_itself(self, shop: Shop) -> None:
        """A chain from a worker to a pod, as README.md shows it."""
        steps = chain(
            shop.client.signature("shop.price", args=["coffee", 3], queue=WORKER),
            shop.client.signature("shop.render_invoice", queue=PODS),
        )

        assert value_of(steps.apply_async()) == "Invoice for somebody: 12.00 €"

    def test_a_pod_of_any_image_stands_in_a_chain(self, shop: Shop) -> None:
        """`dispatcher.pod` in an application that has no DAGs; immutable, for it takes no result."""
        pod = shop.client.signature(
            "dispatcher.pod", kwargs={"image": "busybox", "cmds": ["true"]}, queue=PODS, immutable=True
        )
        steps = chain(shop.signature("add", 1, 2), pod, shop.signature("echo", "after", immutable=True))

        assert value_of(steps.apply_async()) == [["after"], {}]


class TestCredentials:
    """Who may reach broker and result backend."""

    def test_by_default_a_pod_has_none(self, shop: Shop) -> None:
        """The application's variable is not there."""
        assert value_of(shop.send("environment", "SHOP_BROKER")) == {"SHOP_BROKER": None}

    @pytest.mark.parametrize(("task", "args", "what"), [("sends", [1], "send a task"), ("progresses", [], "a state")])
    def test_a_task_that_needs_some_says_so(self, shop: Shop, task: str, args: list[int], what: str) -> None:
        """`.delay()` and `update_state` in a body: the setting is named, with the queue."""
        error = failure_of(shop.send(task, *args))

        assert isinstance(error, errors.PodFailed)
        assert what in str(error)
        assert 'credentials = "inherit"' in str(error)
        assert PODS in str(error)

    def test_with_credentials_a_body_sends_tasks_and_stores_its_own_result(self, shop: Shop) -> None:
        """The pod's Secret has the broker's address; the dispatcher does not store a second time."""
        sent = shop.send("sends", 1, queue=OWN)

        child = shop.client.AsyncResult(value_of(sent))

        assert value_of(child) == 2
        assert value_of(shop.send("add", 1, 1, queue=OWN)) == 2

    def test_with_credentials_failures_retries_and_chains_are_the_pods(self, shop: Shop) -> None:
        """Celery's own tracer does it, in the pod."""
        assert value_of(shop.send("flaky", 2, queue=OWN)) == 2
        failed = shop.send("fail", "ValueError", "no", queue=OWN)
        assert failure_of(failed).args == ("no",)
        assert "behaviours.py" in failed.traceback
        steps = chain(shop.signature("add", 1, 1, queue=OWN), shop.signature("add", 2, queue=WORKER))
        assert value_of(steps.apply_async()) == 4

    @pytest.mark.parametrize("queue", [OWN, WORKER])
    def test_a_body_that_stored_its_result_and_went_back_into_its_queue_runs_again(
        self, shop: Shop, queue: str
    ) -> None:
        """As in a prefork worker: the chain behind it goes on, and the second run is told that it is one."""
        run = f"stored-{queue}"
        first = shop.signature("stores_and_sends_back", run, queue=queue)

        assert value_of(chain(first, shop.signature("add", 22, queue=WORKER)).apply_async()) == 42
        assert shop.noted(run) == ["False", "True"]

    def test_a_pod_that_dies_before_it_stored_is_replayed(self, shop: Shop) -> None:
        """Nobody else would store its failure."""
        error = failure_of(shop.send("leaves", 7, queue=OWN))

        assert isinstance(error, errors.PodFailed)
        assert error.details["exit_code"] == 7


class TestReplacements:
    """`self.replace()`: Celery sends several messages under one id, and each is a launch of its own."""

    @pytest.mark.parametrize("way", ["task", "chain", "chord", "nested"])
    def test_a_task_that_pages_by_replacing_itself_runs_each_page_once(self, shop: Shop, way: str) -> None:
        """The last page's result is the task's; no page is taken for a second delivery of the one before."""
        sent = shop.send("replaces", f"pages-{way}", 1, way, OWN, queue=OWN)

        assert value_of(sent) == 3
        assert shop.noted(f"pages-{way}") == ["page 1", "page 2", "page 3"]

    def test_a_group_in_the_place_of_a_task(self, shop: Shop) -> None:
        """Gathered under the task's id."""
        assert sorted(value_of(shop.send("replaces_by_group", OWN, queue=OWN))) == [2, 4]

    def test_a_part_may_add_to_its_chord(self, shop: Shop) -> None:
        """The chord waits for the part that was added, too."""
        parts_of = [shop.signature("adds_to_chord", "added", OWN, queue=OWN), shop.signature("add", 3, 4, queue=OWN)]
        sent = chord(parts_of, shop.signature("gathers", queue=OWN)).apply_async()

        assert value_of(sent) == [1, 7, 42]
        assert shop.noted("added") == ["part"]


class TestPayloads:
    """How arguments travel."""

    @pytest.mark.parametrize("size", [60_000, 70_000, 250_000, 900_000])
    def test_arguments_of_any_size_below_the_limit_arrive(self, shop: Shop, size: int) -> None:
        """Inline or by a Secret: the body does not know."""
        assert value_of(shop.send("size_of", "x" * size)) == size

    def test_two_megabytes_fail_with_size_limit_and_way_out(self, shop: Shop) -> None:
        """No pod is made."""
        error = failure_of(shop.send("size_of", "x" * 2_000_000))

        assert re.search(r"200\d\d\d\d bytes", str(error))
        assert "921600" in str(error)
        assert "pass where they are" in str(error)

    def test_a_hidden_payload_is_in_no_pod(self, shop: Shop) -> None:
        """Who may read pods but no Secrets does not see arguments; the Secret goes with its pod."""
        sent = shop.send("nap", 2, "nap-s3cret", queue=HIDDEN, headers={"customer": "s3cret"})
        pod = spec_while(shop, sent)
        name = pod["metadata"]["name"]

        assert "s3cret" not in json.dumps(pod)
        secret = parts.eventually(lambda: _secrets(shop).get(name), WAIT_S)
        assert secret["metadata"]["ownerReferences"][0]["uid"] == pod["metadata"]["uid"]
        assert value_of(sent) == "slept"
        parts.eventually(lambda: name not in _secrets(shop), WAIT_S)

    def test_a_hidden_payload_survives_the_dispatcher(self, shop: Shop) -> None:
        """Adoption reads the Secret: the chain goes on."""
        steps = chain(
            shop.signature("nap", 3, "adopted", queue=HIDDEN), shop.signature("echo", queue=HIDDEN)
        ).apply_async()
        parts.eventually(lambda: shop.noted("adopted"), WAIT_S)

        shop.restart_podyard()

        assert value_of(steps) == [["slept"], {}]
        assert len(shop.noted("adopted")) == 1


def _secrets(shop: Shop) -> dict[str, Any]:
    answer = yard_parts.api_get(shop.kubeconfig, "/api/v1/namespaces/default/secrets")
    return {one["metadata"]["name"]: one for one in answer["items"]}


class TestBadInput:
    """Each ends as FAILURE with the cause in the result, acknowledged once, the dispatcher unharmed."""

    @pytest.fixture(autouse=True)
    def unharmed(self, shop: Shop) -> Iterator[None]:
        """The next task runs, and nothing is left unacknowledged."""
        yield
        assert value_of(shop.send("add", 1, 1)) == 2
        with shop.client.connection_for_read() as connection:
            client = connection.default_channel.client
            parts.eventually(lambda: client.hlen("unacked") == 0 and client.llen(PODS) == 0, WAIT_S)

    def test_a_task_that_the_dispatcher_does_not_know(self, shop: Shop) -> None:
        """Celery's own consumer says so."""
        assert type(failure_of(shop.send("nobody_wrote_this"))).__name__ == "NotRegistered"

    def test_a_task_that_the_pods_image_does_not_know(self, shop: Shop) -> None:
        """The dispatcher knows it, the image is older."""
        error = failure_of(shop.send("newest", queue=OLD))

        assert "newest" in str(error)
        assert "image" in str(error)

    def test_an_import_error_in_the_image(self, shop: Shop) -> None:
        """The error is the pod's."""
        override = {"spec": {"containers": [{"env": [{"name": "SHOP_BROKEN", "value": "1"}]}]}}
        error = failure_of(shop.send("add", 1, 1, **_override(override)))

        assert type(error).__name__ == "ModuleNotFoundError"
        assert "fonts_of_the_shop" in str(error)

    def test_an_image_in_which_the_entry_point_cannot_start(self, shop: Shop) -> None:
        """Without Python, or as here without the folder to start in: the cluster's words are the cause."""
        override = {"spec": {"containers": [{"workingDir": "/nowhere/at/all"}]}}
        error = failure_of(shop.send("add", 1, 1, **_override(override)))

        assert isinstance(error, errors.PodFailed)
        assert (error.details["reason"], error.details["cause"]) == ("StartError", "application")
        assert "/nowhere/at/all" in str(error)

    def test_a_pickled_message_is_refused_before_anything_is_unpickled(self, shop: Shop) -> None:
        """Though the application accepts pickle."""
        task_id, trap = str(uuid.uuid4()), shop.folder / "unpickled"
        told = {"id": task_id, "task": "tests.apps.behaviours.add", "retries": 0}
        with shop.client.producer_pool.acquire() as producer:
            producer.publish(
                pickle.dumps(((Trap(trap), 1), {}, {})),
                routing_key=PODS,
                exchange="",
                content_type="application/x-python-serialize",
                content_encoding="binary",
                headers=told,
                correlation_id=task_id,
            )

        error = failure_of(shop.client.AsyncResult(task_id))

        assert isinstance(error, errors.PodFailed)
        assert error.details["reason"] == "UnreadableMessage"
        assert "accepts no pickle" in str(error)
        assert not trap.exists()

    def test_a_pod_that_lacks_credentials_explains_itself(self, shop: Shop) -> None:
        """As failures that the cluster tells do."""
        error = failure_of(shop.send("sends", 1))

        assert isinstance(error, errors.PodFailed)
        assert error.details["reason"] == "NoCredentials"
        assert error.details["explanation"]
        assert error.details["what_to_do"]

    @pytest.mark.parametrize(
        ("body", "headers", "content"),
        [
            (b"{not json", {}, "application/json"),
            (b'[[1], {}, {}, "more"]', {}, "application/json"),
            (b"7", {}, "application/json"),
            (b"\x80\x04.", {}, "application/x-python-serialize"),
            (b"data", {}, "application/x-unheard-of"),
            (b"[[1, 1], {}, {}]", {"task": None}, "application/json"),
            (b'{"v": 3, "call": ["add", 1, 1]}', {"task": None, "version": 3}, "application/json"),
        ],
        ids=["no json", "four parts", "no list", "pickle", "unknown content", "no task", "unknown version"],
    )
    def test_a_message_that_cannot_be_read(
        self, shop: Shop, body: bytes, headers: dict[str, Any], content: str
    ) -> None:
        """Its sender gets the cause instead of waiting for ever."""
        task_id = str(uuid.uuid4())
        told = {"id": task_id, "task": "tests.apps.behaviours.add", "retries": 0, **headers}
        with shop.client.producer_pool.acquire() as producer:
            producer.publish(
                body,
                routing_key=PODS,
                exchange="",
                headers={key: value for key, value in told.items() if value is not None},
                content_type=content,
                content_encoding="utf-8" if content.endswith("json") else "binary",
                correlation_id=task_id,
                serializer=None,
            )

        error = failure_of(shop.client.AsyncResult(task_id))

        assert isinstance(error, errors.PodFailed | TypeError), error

    def test_a_result_without_json_form(self, shop: Shop) -> None:
        """The body ran; its value cannot travel."""
        assert "no JSON form" in str(failure_of(shop.send("strange")))

    @pytest.mark.parametrize("kind", ["garbage", "foreign"])
    def test_an_outcome_that_is_none_or_of_another_pod(self, shop: Shop, kind: str) -> None:
        """Exit code 0 is not believed without an outcome of this launch."""
        error = failure_of(shop.send("forges", kind))

        assert isinstance(error, errors.PodFailed)
        assert error.details["reason"] == "NoOutcome"


def _override(override: dict[str, Any]) -> dict[str, Any]:
    return {"headers": {"podyard": {"pod_override": override}}}
