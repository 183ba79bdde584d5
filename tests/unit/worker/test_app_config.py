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
        ({"imagge": "x"}, {}, ARGV, ["imagge", "'image'"]),
        ({"queues": {"gpu": {"max_podz": 1}}}, {}, ARGV, ["'gpu'", "max_podz", "'max_pods'"]),
        ({"queues": {"gpu": {"max_pods": "many"}}}, {}, ARGV, ["max_pods", "'many'", "whole number"]),
        ({"queues": {"gpu": {"delete": "sometimes"}}}, {}, ARGV, ["delete", "'sometimes'", "succeeded"]),
        ({"queues": ["gpu"]}, {}, ARGV, ["queues", "mapping"]),
        ({"max_pods": 0}, {}, ARGV, ["max_pods", "0", "whole number of at least 1"]),
        ({"max_pods_by_namespace": {"a": 0}}, {}, ARGV, ["max_pods_by_namespace", "table of whole numbers"]),
        ({"create_rate": -1}, {}, ARGV, ["create_rate", "-1", "number of at least 0"]),
        ({}, {"PODYARD_LOGS__MAX_BYTES": "1k"}, ARGV, ["PODYARD_LOGS__MAX_BYTES", "'1k'", "whole number"]),
        ({}, {"PODYARD_KUBERNETES__IN_CLUSTER": "maybe"}, ARGV, ["IN_CLUSTER", "'maybe'", "yes or no"]),
    ],
)
def test_what_cannot_be_used_is_named_with_its_place(
    said: object, environ: dict[str, str], argv: list[str], words: list[str]
) -> None:
    """Key, value, and what is allowed."""
    with pytest.raises(errors.DispatcherError) as caught:
        app_config.from_app(app(said), environ=environ, argv=argv)

    assert all(word in str(caught.value) for word in words), str(caught.value)
