"""The application of a dispatcher for Airflow: whose broker, which options, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest
from kombu.transport.redis import Channel

from routing.airflow import dispatcher_app
from routing.config import settings
from routing.worker import celery_app

AIRFLOW = {
    "AIRFLOW__CELERY__BROKER_URL": "redis://broker:6379/0",
    "AIRFLOW__CELERY__RESULT_BACKEND": "redis://results:6379/1",
}


def build(folder: Path, text: str = "", environ: dict[str, str] | None = None) -> dispatcher_app.AirflowApp:
    file = folder / "podyard.toml"
    file.write_text(text)
    return dispatcher_app.build(
        settings.load(file, environ={}, cwd=folder), environ=AIRFLOW if environ is None else environ
    )


def test_broker_and_results_are_airflows(tmp_path: Path) -> None:
    """As its own variables name them; the result backend is plain Celery's, which Airflow reads."""
    conf = build(tmp_path).app.conf
    assert (conf.broker_url, conf.result_backend) == ("redis://broker:6379/0", "redis://results:6379/1")


def test_settings_win_over_airflows_variables(tmp_path: Path) -> None:
    """A dispatcher may reach the broker under another address."""
    made = build(tmp_path, '[broker]\nurl = "redis://other:6379/0"\n')
    assert made.app.conf.broker_url == "redis://other:6379/0"
    assert made.settings.broker.url == "redis://other:6379/0"


@pytest.mark.parametrize("missing", list(AIRFLOW))
def test_what_is_not_known_is_asked_for(tmp_path: Path, missing: str) -> None:
    """A default would be somebody else's broker."""
    with pytest.raises(settings.SettingsError, match=missing):
        build(tmp_path, environ={name: url for name, url in AIRFLOW.items() if name != missing})


@pytest.mark.parametrize(
    ("version", "is_refused"), [("5.6.3", False), ("5.7.0", True), ("5.10.1", True), ("6.0", True)]
)
def test_a_database_is_refused_where_it_would_end_airflows_scheduler(version: str, is_refused: bool) -> None:
    """From Celery 5.7 on results are stored there in a form that Celery 5.6 dies of. The password is not told."""
    url = "db+postgresql://airflow:hunter2@db/airflow"
    if not is_refused:
        dispatcher_app.refuse_database(url, celery_version=version)
        return
    with pytest.raises(settings.SettingsError, match="end Airflow's scheduler") as told:
        dispatcher_app.refuse_database(url, celery_version=version)
    assert "hunter2" not in str(told.value)


def test_messages_of_dispatchers_are_noted_apart_from_those_of_airflows_workers(tmp_path: Path) -> None:
    """Those acknowledge when a task has ended, and would run twice by the short time-out that dispatchers have."""
    options = {"AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__" + name: text for name, text in OPTIONS.items()}
    found = build(tmp_path, environ={**AIRFLOW, **options}).app.conf.broker_transport_options
    assert {name: found[name] for name in ("visibility_timeout", "unacked_key", "unacked_index_key")} == {
        "visibility_timeout": celery_app.VISIBILITY_S,
        "unacked_key": "podyard-unacked",
        "unacked_index_key": "podyard-unacked_index",
    }
    assert {"unacked_key", "unacked_index_key", "unacked_mutex_key"} <= set(Channel.from_transport_options)


def test_the_way_to_the_broker_is_airflows(tmp_path: Path) -> None:
    """A Sentinel's name and password, for instance."""
    options = {"AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__" + name: text for name, text in OPTIONS.items()}
    found = build(tmp_path, environ={**AIRFLOW, **options}).app.conf.broker_transport_options
    assert {name: found[name] for name in ("master_name", "sentinel_kwargs")} == {
        "master_name": "mymaster",
        "sentinel_kwargs": {"password": "x"},
    }


OPTIONS = {"VISIBILITY_TIMEOUT": "7200", "MASTER_NAME": "mymaster", "SENTINEL_KWARGS": '{"password": "x"}'}


def profile(made: dispatcher_app.AirflowApp, queue: str = "kubernetes") -> Any:
    return made.app.conf.podyard.profile_for(queue)


def test_pods_are_airflows_unless_a_rule_names_a_template(tmp_path: Path) -> None:
    """The default template of tasks of Podyard would start an image of Podyard."""
    assert profile(build(tmp_path)).template == "airflow"
    assert profile(build(tmp_path, '[queues.kubernetes]\ntemplate = "gpu"\n')).template == "gpu"


def test_pods_are_told_where_the_api_server_is(tmp_path: Path) -> None:
    """As the dispatcher is; a rule that says it wins."""
    url = {"AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://api:8080/execution/"}
    assert profile(build(tmp_path, environ={**AIRFLOW, **url})).env == url
    text = '[queues.kubernetes.env]\nAIRFLOW__CORE__EXECUTION_API_SERVER_URL = "http://mine/"\n'
    found = profile(build(tmp_path, text, environ={**AIRFLOW, **url})).env
    assert found == {"AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://mine/"}


def test_no_secret_of_airflow_is_passed_on(tmp_path: Path) -> None:
    """Broker, database and keys of the dispatcher's environment stay there."""
    secrets = {"AIRFLOW__API_AUTH__JWT_SECRET": "s", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "s"}
    assert profile(build(tmp_path, environ={**AIRFLOW, **secrets})).env == {}


def test_the_queue_of_an_old_configuration_is_served(tmp_path: Path) -> None:
    """`[celery_kubernetes_executor] kubernetes_queue`, by its variable."""
    variable = {"AIRFLOW__CELERY_KUBERNETES_EXECUTOR__KUBERNETES_QUEUE": "pods"}
    made = build(tmp_path, environ={**AIRFLOW, **variable})
    assert made.rules.router.names("kubernetes") == ("pods",)
    assert profile(made, "pods").template == "airflow"


def test_a_queue_without_an_image_is_refused(tmp_path: Path) -> None:
    """Before a task finds out. A template of one's own has an image."""
    made = build(tmp_path)
    with pytest.raises(settings.SettingsError, match=r"no image is set for pods of the queue 'kubernetes'"):
        dispatcher_app.check_images(["kubernetes"], made.app.conf.podyard)
    for text in (
        '[kubernetes]\nimage = "apache/airflow:3.3.2"\n',
        '[queues.kubernetes]\nimage = "apache/airflow:3.3.2"\n',
        '[queues.kubernetes]\ntemplate = "gpu"\n',
    ):
        dispatcher_app.check_images(["kubernetes"], build(tmp_path, text).app.conf.podyard)
