"""A plain Celery application says how its pods are made: by its configuration, the environment, or not at all."""

from pathlib import Path

import pytest
from celery import Celery

from dispatcher import errors
from dispatcher.options import Options, QueueProfile
from dispatcher.worker import app_config

ARGV = ["celery", "-A", "shop:app", "worker"]


def app(podyard: object = None) -> Celery:
    """An application that says this of its pods."""
    app = Celery("shop", set_as_current=False)
    if podyard is not None:
        app.conf.podyard = podyard
    return app


def test_an_app_that_says_nothing_gets_sensible_defaults() -> None:
    """Its own name keeps its pods apart from those of others; the command line says what pods import."""
    options = app_config.from_app(app(), environ={}, argv=ARGV)

    assert (options.deployment, options.app_path, options.namespaces) == ("shop", "shop:app", ("default",))
    assert options.profile_for("kubernetes") == options.profile_for("any") == QueueProfile()
    assert (options.kubeconfig, options.database_url, options.log_folder) == (None, None, None)


def test_options_are_taken_as_they_are() -> None:
    """Nothing of the environment touches them."""
    given = Options(profile_for=lambda _: QueueProfile(), app_path="a:b")

    assert app_config.from_app(app(given), environ={"PODYARD_DEPLOYMENT": "x"}, argv=[]) is given


def test_a_mapping_says_it_in_words() -> None:
    """Queues inherit the namespace; paths are made absolute."""
    said = {
        "deployment": "prod",
        "namespace": "jobs",
        "image": "shop:7",
        "kubeconfig": "kube/config",
        "log_folder": "/var/log/shop",
        "max_pods": 50,
        "max_pods_by_namespace": {"gpus": 2},
        "create_rate": 10,
        "queues": {"kubernetes": {"max_pods": 7}, "gpu": {"namespace": "gpus", "credentials": "inherit"}},
    }

    options = app_config.from_app(app(said), environ={}, argv=ARGV)

    assert (options.deployment, options.image, options.log_folder) == ("prod", "shop:7", Path("/var/log/shop"))
    assert options.kubeconfig == Path.cwd() / "kube/config"
    assert (options.max_pods, options.max_pods_by_namespace, options.create_rate) == (50, {"gpus": 2}, 10.0)
    assert options.limits_namespace == "jobs"
    assert options.namespaces == ("gpus", "jobs")
    assert options.profile_for("kubernetes") == QueueProfile(namespace="jobs", max_pods=7)
    assert options.profile_for("gpu") == QueueProfile(namespace="gpus", credentials="inherit")
    assert options.profile_for("other") == QueueProfile(namespace="jobs")


def test_the_environment_wins_and_spells_settings_as_everywhere() -> None:
    """PODYARD_SECTION__KEY; an empty variable is none."""
    environ = {
        "PODYARD_DEPLOYMENT": "night",
        "PODYARD_KUBERNETES__IMAGE": "shop:8",
        "PODYARD_KUBERNETES__IN_CLUSTER": "no",
        "PODYARD_KUBERNETES__NAMESPACE": "",
        "PODYARD_QUEUES__GPU_A100__MAX_PODS": "3",
        "PODYARD_KUBERNETES__MAX_PODS": "8",
        "PODYARD_KUBERNETES__MAX_PODS_BY_NAMESPACE": '{"jobs": 5}',
        "PODYARD_KUBERNETES__CREATE_BURST": "4",
        "PODYARD_QUEUES__KUBERNETES__ENV": '{"A": "1", "B": "x=y"}',
    }
    said = {"deployment": "day", "image": "shop:7", "queues": {"gpu-a100": {"max_pods": 9}}}

    options = app_config.from_app(app(said), environ=environ, argv=ARGV)

    assert (options.deployment, options.image, options.in_cluster) == ("night", "shop:8", False)
    assert options.profile_for("gpu-a100").max_pods == 3
    assert (options.max_pods, options.max_pods_by_namespace, options.create_burst) == (8, {"jobs": 5}, 4)
    assert options.profile_for("kubernetes").env == {"A": "1", "B": "x=y"}


def test_patterns_hold_as_in_an_installation() -> None:
    """An exact name first, then the longer pattern."""
    said = {"queues": {"gpu-*": {"max_pods": 1}, "gpu-big-*": {"max_pods": 2}, "gpu-big-1": {"max_pods": 3}}}

    profile_for = app_config.from_app(app(said), environ={}, argv=ARGV).profile_for

    assert [profile_for(f"gpu-{name}").max_pods for name in ("1", "big-2", "big-1")] == [1, 2, 3]


def test_policy_hook_and_sidecar_are_settings_of_an_application_too() -> None:
    """From its mapping or the environment."""
    said = {"policy": {"privileged": True}, "pod_mutation_hook": "a:b"}
    environ = {"PODYARD_POLICY__IMAGES": "a/*, b/*", "PODYARD_KUBERNETES__XCOM_SIDECAR_IMAGE": "busybox:2"}

    options = app_config.from_app(app(said), environ=environ, argv=ARGV)

    assert (options.policy.privileged, options.policy.images) == (True, ("a/*", "b/*"))
    assert (options.pod_mutation_hook, options.xcom_sidecar_image) == ("a:b", "busybox:2")


def test_variables_of_an_installation_are_no_mistakes() -> None:
    """The application may share its environment with a scheduler."""
    environ = {"PODYARD_BROKER__URL": "x", "PODYARD_HOME": "/x", "PODYARD_SCHEDULER__SWEEP_S": "1"} | {
        "PODYARD_RESULTS__URL": "x",
        "PODYARD_QUEUES__REPORTS__SIDE": "celery",
    }
    assert app_config.from_app(app(), environ=environ, argv=ARGV).deployment == "shop"


def test_all_that_is_wrong_is_reported_at_once_and_no_secret_with_it() -> None:
    """Whoever starts a worker sees everything in one line."""
    said = {"max_pods": 0, "queues": {"gpu": {"env": {"DB": "redis://:hunter2@h", "A": 1}}, "a,b": {}}}
    with pytest.raises(errors.DispatcherError, match=r"max_pods.*env.*the entry 'A'.*can never match") as caught:
        app_config.from_app(app(said), environ={}, argv=ARGV)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("argv", "path"),
    [
        (["celery", "-A", "shop:app", "worker"], "shop:app"),
        (["celery", "--app", "shop", "worker"], "shop"),
        (["celery", "--app=shop.tasks", "worker"], "shop.tasks"),
        (["celery", "-Ashop", "worker"], "shop"),
        (["celery", "worker"], None),
        (["celery", "-A"], None),
    ],
)
def test_the_app_is_read_from_the_command_line(argv: list[str], path: str | None) -> None:
    """In every way in which Celery takes it."""
    assert app_config.app_on_command_line(argv) == path


@pytest.mark.parametrize(
    ("said", "environ", "argv", "words"),
    [
        ({}, {}, [], ["-A MODULE:APP", "PODYARD_KUBERNETES__APP"]),
        (7, {}, ARGV, ["app.conf.podyard", "int", "mapping"]),
        ({"imagge": "x"}, {}, ARGV, ["imagge", '"image"']),
        ({"queues": {"gpu": {"max_podz": 1}}}, {}, ARGV, ["'gpu'", "max_podz", '"max_pods"']),
        ({"queues": {"gpu": {"max_pods": "many"}}}, {}, ARGV, ["max_pods", "'many'", "integer"]),
        ({"queues": {"gpu": {"delete": "sometimes"}}}, {}, ARGV, ["delete", "'sometimes'", "succeeded"]),
        ({"queues": ["gpu"]}, {}, ARGV, ["queues", "table of rules"]),
        ({"max_pods": 0}, {}, ARGV, ["max_pods", "0", "integer of at least 1"]),
        ({"max_pods_by_namespace": {"a": 0}}, {}, ARGV, ["max_pods_by_namespace", "table of namespaces"]),
        ({"create_rate": -1}, {}, ARGV, ["create_rate", "-1", "number, 0 or more"]),
        ({}, {"PODYARD_KUBERNETES__IMAGEE": "x"}, ARGV, ["PODYARD_KUBERNETES__IMAGEE", '"image"']),
        ({}, {"PODYARD_KUBERNETES_IMAGE": "x"}, ARGV, ["the nearest is PODYARD_KUBERNETES__IMAGE"]),
        ({}, {"PODYARD_LOGS__MAX_BYTES": "1k"}, ARGV, ["PODYARD_LOGS__MAX_BYTES", "'1k'", "integer"]),
        ({}, {"PODYARD_KUBERNETES__IN_CLUSTER": "maybe"}, ARGV, ["IN_CLUSTER", "'maybe'", "true or false"]),
    ],
)
def test_what_cannot_be_used_is_named_with_its_place(
    said: object, environ: dict[str, str], argv: list[str], words: list[str]
) -> None:
    """Key, value, and what is allowed."""
    with pytest.raises(errors.DispatcherError) as caught:
        app_config.from_app(app(said), environ=environ, argv=argv)

    assert all(word in str(caught.value) for word in words), str(caught.value)
