"""The Celery application that `--app` names, and the settings of its dispatcher as commands read them.

They are those of `podyard dispatcher --app`: what the application says itself (`app.conf.podyard`) with the
environment, or else the settings file. It has no DAGs, and what it does not say (a database, a folder) it does not
have.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from routing import router
from routing.cli.failure import Failure

if TYPE_CHECKING:
    from celery import Celery

    from dispatcher.options import Options
    from routing.config.settings import Settings

PLACE = "app.conf.podyard"


@dataclass(frozen=True, kw_only=True)
class Application:
    """A Celery application, how its dispatcher works, and the same as settings of an installation."""

    path: str
    app: "Celery"
    options: "Options"
    settings: "Settings"
    """Of an installation that had this application alone."""


def load(path: str, settings: "Settings") -> Application:
    """The application at `path`; `settings` are the installation's, which stand in where it says nothing itself.

    Raises Failure where there is no such application, or what it says cannot be used.
    """
    app = find(path)
    options = options_of(app, path, settings)
    return Application(path=path, app=app, options=options, settings=_settings(app, path, options, settings))


def find(path: str) -> "Celery":
    """The Celery application that `path` names as `celery -A` does. Raises Failure."""
    from celery import Celery
    from celery.app.utils import find_app

    try:
        app = find_app(path)  # looks in the current folder too, as `celery -A` does
    except Exception as error:  # importing runs the author's code, which may raise anything
        raise Failure(
            f"--app {path}: no Celery application could be loaded: {type(error).__name__}: {error};"
            " name it as MODULE:APP, from the folder where MODULE can be imported"
        ) from error
    if not isinstance(app, Celery):
        raise Failure(f"--app {path}: is a {type(app).__name__}, not a Celery application; name one as MODULE:APP")
    return app


def options_of(app: "Celery", path: str, settings: "Settings") -> "Options":
    """The options of its dispatcher. Raises Failure with all that cannot be used."""
    if app.conf.get("podyard") is not None:
        from dispatcher import errors
        from dispatcher.worker import app_config

        try:
            return app_config.from_app(app, argv=["--app", path])
        except errors.DispatcherError as error:
            raise Failure(f"--app {path}: {error}") from error
    from routing.worker import celery_app

    # The application's own name before the default: two applications on one cluster must not take each other's pods.
    named = settings.deployment if "deployment" in settings.source else app.main or settings.deployment
    database = settings.database.url if "database.url" in settings.source else None
    return replace(celery_app.dispatcher_options(settings), app_path=path, deployment=named, database_url=database)


def _settings(app: "Celery", path: str, options: "Options", of_installation: "Settings") -> "Settings":
    rules, source = of_installation.router, dict(of_installation.source)
    rule_source = of_installation.rule_source
    if (given := app.conf.get("podyard")) is not None:
        rules, source, rule_source = _said(given, options)
    return replace(
        of_installation,
        deployment=options.deployment,
        broker=replace(of_installation.broker, url=_url(app.conf.broker_url)),
        results=replace(of_installation.results, url=_url(app.conf.result_backend), max_bytes=options.result_max_bytes),
        database=replace(of_installation.database, url=options.database_url or ""),
        logs=replace(
            of_installation.logs,
            folder=options.log_folder or of_installation.logs.folder,
            max_bytes=options.log_max_bytes,
        ),
        health=replace(of_installation.health, folder=options.health_folder or of_installation.health.folder),
        kubernetes=replace(
            of_installation.kubernetes,
            kubeconfig=options.kubeconfig,
            context=options.context,
            in_cluster=options.in_cluster,
            verify_ssl=options.verify_ssl,
            namespace=options.limits_namespace or options.namespaces[0],
            max_pods=options.max_pods,
            max_pods_by_namespace=dict(options.max_pods_by_namespace),
            create_rate=options.create_rate,
            create_burst=options.create_burst,
            image=options.image,
            app=options.app_path,
            pod_mutation_hook=options.pod_mutation_hook,
            xcom_sidecar_image=options.xcom_sidecar_image,
        ),
        policy=options.policy,
        router=rules,
        source={
            **source,
            "kubernetes.app": source.get("kubernetes.app", "--app"),
            "broker.url": f"{path}: broker_url",
            "results.url": f"{path}: result_backend",
        },
        rule_source=rule_source,
        files=() if given is not None else of_installation.files,
    )


def _said(given: object, options: "Options") -> tuple[router.Router, dict[str, str], Mapping[str, str]]:
    """The rules, and where each value stands, of an application that says them itself. All its rules are of pods."""
    from dispatcher.settings import layers
    from dispatcher.worker import app_config

    if not isinstance(given, Mapping):  # an Options of its own, which has no list of rules
        try:
            profiles = {layers.DEFAULT_RULE: options.profile_for(layers.DEFAULT_RULE)}
        except LookupError:  # it has no such queue
            profiles = {}
        return _router(profiles), {}, dict.fromkeys(profiles, PLACE)
    read = app_config.read_app(given, environ=os.environ)
    profiles = app_config.profiles(read)
    source = {layers.spell(key): value.place for key, value in read.values.items()}
    return _router(profiles), source, read.rules


def _router(profiles: Mapping[str, Any]) -> router.Router:
    return router.Router(
        [router.QueueRule(name=name, side="kubernetes", profile=profile) for name, profile in profiles.items() if name]
    )


def _url(value: object) -> str:
    """As people read it: several brokers that stand in for each other are a list or a text with semicolons."""
    return ";".join(map(str, value)) if isinstance(value, list | tuple) else str(value or "")
