"""The Celery application of a dispatcher that serves an Airflow installation.

Broker, result backend and the broker's options are Airflow's: as Podyard's settings name them, or else as Airflow's own
variables do. Airflow itself is not imported, and need not be installed. Connects to nothing.
"""

import importlib.metadata
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from celery import Celery

from dispatcher import errors
from dispatcher.manifests import redaction, workload
from dispatcher.options import Options, QueueProfile
from routing import router
from routing.airflow import rules
from routing.config.settings import Settings, SettingsError
from routing.worker import celery_app

BROKER = "AIRFLOW__CELERY__BROKER_URL"
RESULTS = "AIRFLOW__CELERY__RESULT_BACKEND"
_BROKER_OPTION = "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__"
UNACKNOWLEDGED = "podyard-unacked"
"""Where Redis notes messages that dispatchers have taken: apart from those of Airflow's workers, which acknowledge when
a task has ended and so have a visibility time-out of a day. A dispatcher acknowledges when the pod is there, so what
one that was killed had taken comes again after a minute."""
_OF_WORKERS = "visibility_timeout"
"""Airflow's option that says how long its workers' tasks may last."""
TEMPLATE = "airflow"
"""The pod template of queues whose rule names none."""
PASSED_ON = (
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
    "AIRFLOW__API__BASE_URL",
    "AIRFLOW__CORE__DAGS_FOLDER",
    "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST",
)
"""Variables of the dispatcher that pods get, unless their queue says otherwise: where the API server and DAGs are."""
_WITHOUT_DATABASE_FORMAT = (5, 7)
"""From this Celery on, results in a database are stored in a form that Airflow's Celery 5.6 dies of."""


@dataclass(frozen=True, kw_only=True)
class AirflowApp:
    """What a dispatcher for Airflow is started with."""

    app: Celery
    settings: Settings
    """With broker and result backend as they are used."""
    rules: rules.Rules


def build(known: Settings, *, environ: Mapping[str, str] = os.environ) -> AirflowApp:
    """The application for a dispatcher. Raises SettingsError for what would not work, or would harm Airflow."""
    broker = _chosen(known, "broker.url", known.broker.url, BROKER, environ)
    results = _chosen(known, "results.url", known.results.url, RESULTS, environ)
    # Before anything is started: one result in the newer form ends Airflow's scheduler.
    refuse_database(results)
    settings = replace(
        known,
        broker=replace(known.broker, url=broker),
        results=replace(known.results, url=results),
    )
    routes = rules.of(known, kubernetes_queue=environ.get(rules.VARIABLE))
    settings = replace(settings, router=_with_pods_of_airflow(known, routes, environ))
    app = Celery("podyard-airflow", fixups=())
    app.conf.update(_config(settings, broker=broker, results=results, environ=environ))
    _register(app)
    # The default is Podyard's SQLite file, which nobody has beside Airflow.
    database = known.database.url if "database.url" in known.source else None
    app.conf.podyard = replace(celery_app.dispatcher_options(settings), database_url=database)
    return AirflowApp(app=app, settings=settings, rules=replace(routes, router=settings.router))


def refuse_database(url: str, *, celery_version: str = importlib.metadata.version("celery")) -> None:
    """Raises SettingsError for a result backend by which this process would end Airflow's scheduler."""
    version = tuple(int(part) for part in celery_version.split(".")[:2])
    if url.startswith("db+") and version >= _WITHOUT_DATABASE_FORMAT:
        raise SettingsError(
            f"the result backend {redaction.hide_text(url)} is a database: Celery {celery_version} here writes results"
            " there that end Airflow's scheduler, which reads them with Celery 5.6; set [celery] result_backend of"
            " Airflow to redis://…, or run this dispatcher with celery<5.7"
        )


def check_images(queues: Sequence[str], options: Options) -> None:
    """Raises SettingsError where pods of a queue would have no image: it must be the API server's Airflow."""
    for queue in queues:
        profile = options.profile_for(queue)
        if profile.template == TEMPLATE and not (profile.image or options.image):
            raise SettingsError(
                f"no image is set for pods of the queue {queue!r}: set kubernetes.image or queues.{queue}.image to the"
                ' image that your Airflow runs, such as "apache/airflow:3.3.2"'
            )


def _chosen(known: Settings, key: str, value: str, variable: str, environ: Mapping[str, str]) -> str:
    if key in known.source:
        return value
    if not environ.get(variable):
        raise SettingsError(
            f"it is not known which {key.partition('.')[0]} Airflow has: set {variable} as for Airflow itself, or {key}"
        )
    return environ[variable]


def _with_pods_of_airflow(known: Settings, routes: rules.Rules, environ: Mapping[str, str]) -> router.Router:
    """The rules, with a template and variables for pods of Airflow where they say nothing."""
    passed = {name: environ[name] for name in PASSED_ON if environ.get(name)}

    def completed(rule: router.QueueRule) -> router.QueueRule:
        if rule.side != "kubernetes":
            return rule
        # What the rule says of a variable wins over what this process happens to have.
        profile: QueueProfile = replace(rule.profile, env={**passed, **rule.profile.env})
        if f"queues.{rule.name}.template" not in known.source:
            profile = replace(profile, template=TEMPLATE)
        return replace(rule, profile=profile)

    return router.Router([completed(rule) for rule in routes.router.rules])


def _config(settings: Settings, *, broker: str, results: str, environ: Mapping[str, str]) -> dict[str, Any]:
    return {
        **celery_app.configuration(settings, "dispatcher"),
        "broker_transport_options": {
            # Later wins: Airflow's options over ours, but never over where taken messages are noted.
            **celery_app.transport_options(broker, "dispatcher"),
            **_broker_options(environ),
            **_unacknowledged(broker),
        },
        "result_backend": results,
        "task_track_started": True,  # so the API server knows whom to ask for the log
    }


def _broker_options(environ: Mapping[str, str]) -> dict[str, Any]:
    """What Airflow's variables say of the broker: numbers and JSON as such, else texts."""
    given = {}
    for name, text in environ.items():
        if not name.startswith(_BROKER_OPTION):
            continue
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        given[name.removeprefix(_BROKER_OPTION).lower()] = value
    given.pop(_OF_WORKERS, None)
    return given


def _unacknowledged(broker: str) -> dict[str, str]:
    """The keys of messages that are taken and not acknowledged, where the broker keeps them so."""
    if not broker.startswith(("redis", "sentinel")):
        return {}
    names = {"unacked_key": "", "unacked_index_key": "_index", "unacked_mutex_key": "_mutex"}
    return {option: UNACKNOWLEDGED + ending for option, ending in names.items()}


def _register(app: Celery) -> None:
    @app.task(name=workload.TASK, shared=False)
    def execute_workload(*args: Any, **kwargs: Any) -> None:  # the dispatcher reads them from the message
        raise errors.DispatcherError("a workload of Airflow runs in a pod, not in the dispatcher")
