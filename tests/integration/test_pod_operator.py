"""Pods of any image on real parts: results, outcomes, time limits, logs, namespaces, and what stays of the pods."""

import json
from pathlib import Path
from typing import Any

import pytest
from celery.result import AsyncResult

from dispatcher import errors
from dispatcher.manifests import labels
from tests import parts
from tests.integration.yard_parts import Yard, api_call, failure_of, pod_failure_of, pods_of

WAIT_S = 30
RESULT = "/airflow/xcom/return.json"


def send(yard: Yard, script: str | None = None, **arguments: Any) -> AsyncResult:
    """A pod of any image that runs a shell script."""
    words = {} if script is None else {"cmds": ["sh", "-c", script]}
    return yard.client.send_task(
        "dispatcher.pod", kwargs={"image": "busybox:1.37", **words, **arguments}, queue="kubernetes"
    )


def pod_of(yard: Yard, result: AsyncResult) -> dict[str, Any] | None:
    """The pod of a task, while there is one."""
    pods = pods_of(yard).values()
    return next((pod for pod in pods if (labels.key_of(pod) or ("",))[0] == result.id), None)


def phase_of(yard: Yard, result: AsyncResult) -> str | None:
    """The phase of a task's pod, while there is one."""
    pod = pod_of(yard, result)
    return pod["status"]["phase"] if pod else None


def log_of(yard: Yard, result: AsyncResult) -> str:
    path = Path(yard.logs / f"{result.id}.log")
    return parts.eventually(lambda: path.exists() and path.read_text(), 10, what="the log is saved")


class TestResults:
    @pytest.mark.parametrize(
        "value", [{"rows": 3, "name": "größer"}, [], 0, None, "x" * 650, list(range(5_000))], ids=repr
    )
    def test_what_the_file_holds_is_the_result(self, shared: Yard, value: Any) -> None:
        """Small ones come by the termination message, larger ones by the sidecar's log."""
        text = json.dumps(value, ensure_ascii=False)
        sent = send(shared, f"cat > {RESULT} <<'END'\n{text}\nEND", do_xcom_push=True)

        assert sent.get(timeout=WAIT_S) == value

    def test_a_file_that_is_not_there_is_an_empty_result(self, shared: Yard) -> None:
        """The task succeeds."""
        assert send(shared, "true", do_xcom_push=True).get(timeout=WAIT_S) is None

    def test_the_file_may_be_elsewhere(self, shared: Yard) -> None:
        """`xcom_path` names it."""
        sent = send(shared, "echo 7 > /out/answer", do_xcom_push=True, xcom_path="/out/answer")

        assert sent.get(timeout=WAIT_S) == 7

    def test_what_is_no_json_fails_and_shows_its_first_bytes(self, shared: Yard) -> None:
        """The author sees what was written."""
        error = pod_failure_of(send(shared, f"echo 'rows: 3' > {RESULT}", do_xcom_push=True))

        assert error.details["reason"] == "InvalidResult"
        assert "b'rows: 3" in str(error)

    def test_a_result_over_the_limit_fails_with_both_sizes(self, shared: Yard) -> None:
        """2 MiB where 1 MiB is allowed."""
        error = pod_failure_of(send(shared, f"head -c 2097152 /dev/zero > {RESULT}", do_xcom_push=True))

        assert error.details["reason"] == "ResultTooLarge"
        assert "2097152 bytes, allowed are 1048576" in str(error)

    def test_a_failing_task_fails_with_its_exit_code_whatever_it_wrote(self, shared: Yard) -> None:
        """The container decides, not the file."""
        error = pod_failure_of(send(shared, f"echo 1 > {RESULT}; exit 4", do_xcom_push=True))

        assert error.details["exit_code"] == 4


class TestOutcomes:
    def test_an_exit_code_may_mean_skipped(self, shared: Yard) -> None:
        """Of a class of its own, for the scheduler to know."""
        error = pod_failure_of(send(shared, "exit 99", skip_on_exit_code=[99, 100]))

        assert isinstance(error, errors.PodSkipped)
        assert {"reason": "Skipped", "exit_code": 99}.items() <= error.details.items()

    def test_another_exit_code_does_not(self, shared: Yard) -> None:
        """It is a failure as ever."""
        assert not isinstance(failure_of(send(shared, "exit 98", skip_on_exit_code=99)), errors.PodSkipped)

    def test_the_container_that_decides_may_have_another_name(self, shared: Yard) -> None:
        """A sidecar that fails beside it does not count."""
        spec = {
            "spec": {"containers": [{"name": "beside", "image": "busybox:1.37", "command": ["sh", "-c", "exit 1"]}]}
        }
        whole = {"spec": {"containers": [{"name": "main"}, *spec["spec"]["containers"]]}}
        sent = send(shared, "echo done", base_container_name="main", full_pod_spec=whole)

        assert sent.get(timeout=WAIT_S) is None
        assert log_of(shared, sent) == "done\n"

    def test_a_pod_that_no_node_suits_fails_in_time_with_the_clusters_words(self, shared: Yard) -> None:
        """And is deleted, so that it cannot start later."""
        sent = send(shared, "true", node_selector={"disk": "holographic"}, schedule_timeout_seconds=1)

        error = pod_failure_of(sent)

        assert {"reason": "Unschedulable", "cause": "infrastructure"}.items() <= error.details.items()
        assert "was not scheduled within 1 s" in str(error)
        parts.eventually(lambda: pod_of(shared, sent) is None, 15, what="the pod is deleted")

    def test_a_pod_that_does_not_start_in_time_fails_with_what_it_waits_for(self, shared: Yard) -> None:
        """A volume of a driver that is not there: its event is in the message and in the log."""
        volume = [{"name": "far", "csi": {"driver": "nowhere.example.com"}}]
        mounts = [{"name": "far", "mountPath": "/far"}]
        sent = send(shared, "true", volumes=volume, volume_mounts=mounts, startup_timeout_seconds=1)

        error = pod_failure_of(sent)

        assert "was not started within 1 s" in str(error)
        assert "FailedMount" in str(error)
        assert "FailedMount" in log_of(shared, sent)

    def test_the_active_deadline_is_kubernetes_own(self, shared: Yard) -> None:
        """DeadlineExceeded, the author's side."""
        error = pod_failure_of(send(shared, "sleep 60", active_deadline_seconds=1, termination_grace_period=0))

        assert {"reason": "DeadlineExceeded", "cause": "application"}.items() <= error.details.items()

    def test_a_failure_tells_the_last_words_of_the_container(self, shared: Yard) -> None:
        """By its termination message policy."""
        error = pod_failure_of(
            send(shared, "echo no such table; exit 3", termination_message_policy="FallbackToLogsOnError")
        )

        assert "no such table" in str(error)


class TestLogs:
    def test_logs_of_several_containers_say_whose_line_is_whose(self, shared: Yard) -> None:
        """Init containers first, in the order of the manifest."""
        init = {"name": "prepare", "image": "busybox:1.37", "command": ["sh", "-c", "echo preparing"]}
        sent = send(shared, "echo working", init_containers=[init], init_container_logs=True)

        assert sent.get(timeout=WAIT_S) is None
        assert log_of(shared, sent) == "[prepare] preparing\n[base] working\n"

    def test_the_log_of_an_init_container_that_failed_is_saved_and_it_is_named(self, shared: Yard) -> None:
        """Unasked: without it «its log says why» would name a log that nobody has."""
        init = {"name": "fetch", "image": "busybox:1.37", "command": ["sh", "-c", "echo no such bucket; exit 9"]}
        sent = send(shared, "echo working", init_containers=[init])
        error = pod_failure_of(sent)

        assert "failed: its container fetch: Error, exit code 9" in str(error)
        assert log_of(shared, sent).startswith("no such bucket\n")

    def test_a_container_that_is_not_there_gets_a_line_that_says_so(self, shared: Yard) -> None:
        """The others are saved."""
        sent = send(shared, "echo working", container_logs=["base", "nobody"])

        assert sent.get(timeout=WAIT_S) is None
        assert "[nobody] (no log" in log_of(shared, sent)


class TestWhatStays:
    @pytest.mark.parametrize(
        ("action", "script", "stays"),
        [
            ("delete_pod", "exit 1", False),
            ("delete_succeeded_pod", "true", False),
            ("delete_succeeded_pod", "exit 1", True),
            ("delete_active_pod", "true", True),
            ("keep_pod", "true", True),
        ],
    )
    def test_the_sender_says_what_becomes_of_the_pod(self, shared: Yard, action: str, script: str, stays: bool) -> None:
        """A pod that is kept is marked as done, which takes it out of every selector of ours."""
        sent = send(shared, script, on_finish_action=action)
        parts.eventually(sent.ready, WAIT_S)

        if stays:
            found = parts.eventually(lambda: (pod := pod_of(shared, sent)) and labels.is_done(pod) and pod, 10)
            assert found["status"]["phase"] in ("Succeeded", "Failed")
        else:
            parts.eventually(lambda: pod_of(shared, sent) is None, 10, what="the pod is deleted")


class TestRefused:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"imagge": "x"}, 'imagge: unknown argument; did you mean "image"?'),
            ({"volumes": [{"name": "a", "hostPath": {"path": "/etc"}}]}, "spec.volumes[0].hostPath.path: '/etc'"),
            ({"hostnetwork": True}, "spec.hostNetwork: true is not allowed"),
            ({"namespace": "kube-system"}, "metadata.namespace: 'kube-system' is not allowed"),
            ({"tolerations": [{"toleration_seconds": 3}]}, 'did you mean "tolerationSeconds"?'),
            ({"annotations": {"note": "x" * 300_000}}, "bytes"),
        ],
        ids=["unknown", "policy", "network", "namespace", "snake case", "annotations"],
    )
    def test_what_cannot_be_launched_fails_alone_and_before_any_call(
        self, shared: Yard, arguments: dict[str, Any], words: str
    ) -> None:
        """The failure names the path; no pod was made."""
        sent = send(shared, "true", **arguments)

        assert words in str(failure_of(sent))
        assert pod_of(shared, sent) is None


class TestSelfCheck:
    def test_stats_say_that_no_permission_is_missing(self, shared: Yard) -> None:
        """The local cluster allows everything."""
        node = f"dispatcher@{shared.deployment}"
        stats = shared.client.control.inspect([node], timeout=1).stats()

        assert stats[node]["pool"]["missing-permissions"] == []


class TestRestart:
    def test_a_result_waits_for_the_next_dispatcher(self, yard: Yard) -> None:
        """The pod ends while nobody watches; its result and its options are read from the pod."""
        first = yard.dispatcher()
        text = json.dumps(["x" * 100] * 100)
        script = f"touch began; while [ ! -e go ]; do sleep 0.05; done; echo '{text}' > {RESULT}"
        sent = send(yard, f"cd {yard.folder}; {script}", do_xcom_push=True, on_finish_action="keep_pod")
        parts.eventually((yard.folder / "began").exists, 20)
        yard.kill(first)
        (yard.folder / "go").touch()
        parts.eventually(lambda: phase_of(yard, sent) == "Succeeded", 15)

        yard.dispatcher()

        assert sent.get(timeout=WAIT_S) == json.loads(text)
        parts.eventually(lambda: labels.is_done(pod_of(yard, sent)), 10, what="the pod is kept")

    def test_pods_in_a_namespace_of_the_tasks_choice_are_found_again(self, yard: Yard) -> None:
        """Only a pattern allows it: it is watched from its first pod on, and found by a list of the cluster."""
        namespace = f"jobs-{yard.deployment}"
        api_call(yard.kubeconfig, "/api/v1/namespaces", method="POST", body={"metadata": {"name": namespace}})
        first = yard.dispatcher(YARD_NAMESPACES="jobs-*")
        assert send(yard, "true", namespace=namespace).get(timeout=WAIT_S) is None
        sent = send(yard, f"while [ ! -e {yard.folder}/go ]; do sleep 0.05; done", namespace=namespace)
        parts.eventually(lambda: phase_of(yard, sent) == "Running", 15)
        yard.kill(first)
        (yard.folder / "go").touch()

        yard.dispatcher(YARD_NAMESPACES="jobs-*")

        assert sent.get(timeout=WAIT_S) is None
