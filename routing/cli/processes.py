"""The commands that run until they are stopped: the parts of an installation, or all of them at once.

A part waits, with a message, for what it needs; it may be started before the broker or the API server.
"""

import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import click

from dispatcher.settings import layers
from routing import commands, router
from routing.cli import application, plaintext, stop_bound
from routing.cli.failure import Failure
from routing.cli.session import Session, app_option, common_options, pass_session
from routing.config.settings import Settings

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

queues_option = click.option(
    "--queues", "-Q", metavar="NAMES", help="Queues beside those that rules name exactly; separated by commas."
)
loglevel_option = click.option(
    "--loglevel",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
    default="INFO",
    show_default=True,
    help="What is logged.",
)


@click.command()
@click.option("--flower/--no-flower", default=True, show_default=True, help="Whether to start Flower.")
@click.option("--flower-port", type=click.IntRange(0, 65_535), help="Its port; 0 takes a free one.")
@common_options
@pass_session
def demo(session: Session, *, flower: bool, flower_port: int | None) -> None:
    """Run a DAG over Celery workers and pods, on parts brought along, and show where each task ran.

    Takes about a minute, needs nothing but this program, and leaves its database and report in ./.podyard.

    \b
    Example:  podyard demo
    """
    from routing.standalone import demo as demonstration
    from routing.standalone import standalone as machine

    options = machine.StandaloneOptions(
        config=session.config, home=session.home, flower=flower, flower_port=flower_port
    )
    if not demonstration.run(options):
        raise Failure(
            "the demo did not end well; `podyard tasks list` shows the tasks, `podyard tasks explain TASK` why"
        )


@click.command()
@click.option("--dags", type=click.Path(path_type=Path), help="Folder of DAG files; else the setting dags.folder.")
@click.option("--flower/--no-flower", default=True, show_default=True, help="Whether to start Flower.")
@click.option("--flower-port", type=click.IntRange(0, 65_535), help="Its port; 0 takes a free one.")
@common_options
@pass_session
def standalone(session: Session, *, dags: Path | None, flower: bool, flower_port: int | None) -> None:
    """Run everything on this machine: broker, database, a local cluster, scheduler, worker, dispatcher, Flower.

    Ctrl-C stops all of it. What the settings name already (a broker, a cluster) is used and not brought along.

    \b
    Example:  podyard standalone --dags ./dags
    """
    from routing.standalone import standalone as machine

    options = machine.StandaloneOptions(
        config=session.config, home=session.home, dags=dags, flower=flower, flower_port=flower_port
    )
    machine.run(options, say=lambda line: click.echo(plaintext.lines(line)))


@click.command()
@loglevel_option
@common_options
@pass_session
def scheduler(session: Session, loglevel: str) -> None:
    """Find ready tasks, send them to their queues, and collect the outcomes of both sides.

    \b
    Example:  podyard scheduler
    """
    # Before anything is waited for: an SQLite file that nobody made does not come by waiting.
    session.require_database_file()
    from routing.cli import reach
    from routing.scheduling import service

    _log(loglevel)
    # The database first: a scheduler without one has nothing to send.
    reach.wait_for(session.settings, database=reach.database, broker=reach.broker, result_backend=reach.results)
    service.run(session.settings, stop=_stop_on_signals())


ALONE = ("--without-mingle", "--without-gossip")
"""Workers of DAGs need not ask each other what was revoked, for a second at each start: the record knows."""


@click.command()
@click.option("--concurrency", "-c", type=click.IntRange(min=1), help="Processes; else the setting worker.concurrency.")
@queues_option
@click.option("--name", default="worker@%h", show_default=True, help="Celery's node name; %h is the host.")
@loglevel_option
@common_options
@pass_session
def worker(session: Session, *, concurrency: int | None, queues: str | None, name: str, loglevel: str) -> None:
    """Run tasks of Celery-side queues in processes: `default`, every Celery-side queue that a rule names, --queues.

    \b
    Example:  podyard worker --concurrency 8 --queues reports,mail
    """
    settings = session.settings
    names = worker_queues(settings.router, _split(queues))
    from routing.cli import reach
    from routing.worker import celery_app

    reach.wait_for(settings, broker=reach.broker, result_backend=reach.results)
    app = celery_app.build(settings, role="worker")
    size = concurrency or settings.worker.concurrency
    words = [f"--concurrency={size}", "-Q", ",".join(names), "-n", name, f"--loglevel={loglevel}"]
    _run_worker(app, "worker", *words, *ALONE)


@click.command()
@click.option(
    "--app", "app_path", metavar="MODULE:APP", help="A Celery application of your own, as `celery -A` has it."
)
@click.option(
    "--airflow", "is_airflow", is_flag=True, help="Airflow's broker and queues: see PodyardExecutor in docs/airflow.md."
)
@click.option("--max-pods", type=click.IntRange(min=1), help="Pods at once over all queues; else the sum of max_pods.")
@queues_option
@click.option("--name", default="dispatcher@%h", show_default=True, help="Celery's node name; %h is the host.")
@loglevel_option
@common_options
@pass_session
def dispatcher(
    session: Session,
    *,
    app_path: str | None,
    is_airflow: bool,
    max_pods: int | None,
    queues: str | None,
    name: str,
    loglevel: str,
) -> None:
    """Run tasks of Kubernetes-side queues in pods, one each: every such queue that a rule names, and --queues.

    It is a Celery worker whose slots are pods: `celery inspect`, revoke and Flower work on it. It serves the tasks of
    DAGs; with --app a Celery application, on the broker of that application; with --airflow an Airflow 3.

    \b
    Example:  podyard dispatcher --queues gpu-a100,gpu-h100
              podyard dispatcher --app shop:app
              podyard dispatcher --airflow
    """
    if app_path and is_airflow:
        raise Failure("--app and --airflow exclude each other: a dispatcher serves one application")
    os.environ["CELERY_CUSTOM_WORKER_POOL"] = "dispatcher.pool:KubernetesPool"  # Celery reads it when it is imported
    settings, wanted = session.settings, _split(queues)
    if is_airflow:
        app, names = _app_of_airflow(settings, wanted)
    elif app_path:
        app, names = _own_app(app_path, settings, wanted)
    else:
        app, names = _app_of_dags(settings, wanted)
    profile_for = app.conf.podyard.profile_for
    # By name, so that a queue that is named twice counts once.
    size = max_pods or sum({name: profile_for(name).max_pods for name in names}.values())
    pool = ["-P", "custom", f"--concurrency={size}"]
    words = ["-Q", ",".join(names), "-n", name, f"--loglevel={loglevel}"]
    # Only ours go alone: an application's workers tell each other by mingle what was revoked.
    _run_worker(app, "dispatcher", *pool, *words, *(() if app_path or is_airflow else ALONE))


def _runs_bodies() -> bool:
    from celery.worker import state

    return bool(state.active_requests)


def _run_worker(app: Any, role: str, *words: str) -> None:
    """Runs a Celery worker until it is stopped. Raises Failure where it ended otherwise than by being asked to.

    `worker_main` gives 0 whatever the worker says, so the worker is asked itself.
    """
    from celery import signals

    workers: list[Any] = []

    def remember(sender: Any, **kwargs: Any) -> None:
        workers.append(sender)

    def bound(how: str, **kwargs: Any) -> None:
        if role == "dispatcher":
            stop_bound.begin(role, bound_s=stop_bound.DISPATCHER_S)  # its pods run on
        else:
            stop_bound.begin(role, bound_s=stop_bound.WORKER_S, is_busy=lambda: how == "Warm" and _runs_bodies())

    # Celery's signals keep weak references by default, and a function of this function has no other.
    signals.worker_init.connect(remember, weak=False)
    signals.worker_shutting_down.connect(bound, weak=False)
    app.worker_main(["worker", *words])
    code = workers[-1].exitcode if workers else 1
    if code:
        raise Failure(
            f"the worker ended by itself with exit code {code}; its log says why, from `Unrecoverable error` on"
        )


def _app_of_dags(settings: Settings, wanted: Sequence[str]) -> tuple[Any, tuple[str, ...]]:
    """The application that runs tasks of DAGs, and its queues, once everything that it needs answers."""
    names = dispatcher_queues(settings.router, wanted)
    _say_about_patterns(settings)
    from routing.cli import reach
    from routing.worker import celery_app

    reach.wait_for(settings, broker=reach.broker, result_backend=reach.results, Kubernetes_API_server=reach.kubernetes)
    return celery_app.build(settings, role="dispatcher"), names


def _app_of_airflow(settings: Settings, wanted: Sequence[str]) -> tuple[Any, tuple[str, ...]]:
    """The application that serves an Airflow, and its queues, once broker and API server answer."""
    from routing.airflow import dispatcher_app
    from routing.cli import reach

    made = dispatcher_app.build(settings)
    names = dispatcher_queues(made.rules.router, wanted)
    dispatcher_app.check_images(names, made.app.conf.podyard)
    _say_about_patterns(made.settings)
    reach.wait_for(made.settings, broker=reach.broker, Kubernetes_API_server=reach.kubernetes)
    return made.app, names


def _own_app(path: str, settings: Settings, wanted: Sequence[str]) -> tuple[Any, tuple[str, ...]]:
    """The Celery application at `path` and its queues; how its pods are made it says itself, or else the settings do.

    Raises Failure where there is no such application or it cannot be served so.
    """
    found = application.load(path, settings)
    app = found.app
    # What the application says of the patches itself wins over this file.
    if app.conf.get("podyard_celery_patches") is None:
        app.conf.podyard_celery_patches = dict(vars(settings.celery_patches))
    says_itself = app.conf.get("podyard") is not None
    app.conf.podyard = found.options
    if says_itself:
        return app, tuple(wanted) or (layers.DEFAULT_RULE,)
    return app, dispatcher_queues(settings.router, wanted)


@click.command()
@app_option
@common_options
@pass_session
def flower(session: Session) -> None:
    """Serve Flower, Celery's web page, on the address and port of the settings flower.address and flower.port.

    It has a page of pods: those of DAGs, with --app those of a Celery application.

    \b
    Example:  PODYARD_FLOWER__BASIC_AUTH=user:password podyard flower
              podyard flower --app shop:app
    """
    from routing.cli import reach
    from routing.standalone import flower as page

    try:
        if session.application:
            reach.wait_for(session.settings, broker=lambda _: reach.broker_of(session.celery))
        else:
            reach.wait_for(session.settings, broker=reach.broker)
        page.run(session.settings, app=session.celery)
    finally:
        stop_bound.begin("Flower", bound_s=stop_bound.FLOWER_S)  # what it asks the broker is waited for at its end


@click.command("local-cluster")
@click.option("--port", type=click.IntRange(0, 65_535), default=0, show_default=True, help="0 takes a free one.")
@click.option("--max-pods", type=click.IntRange(min=1), help="Pods that run at once; more of them wait. Default 250.")
@click.option(
    "--instant", "runtime", flag_value="instant", help="Pods end at once with success, and no process is started."
)
@click.option(
    "--hold", "runtime", flag_value="hold", help="Pods stay Running without a process until they are deleted."
)
@click.option(
    "--faults", is_flag=True, envvar="PODYARD_LOCAL_CLUSTER_FAULTS", help="Faults may be asked for (docs/testing.md)."
)
@click.option(
    "--faults-file", type=click.Path(path_type=Path), help="Faults to begin with, and to follow; turns faults on."
)
@common_options
@pass_session
def local_cluster(
    session: Session,
    *,
    port: int,
    max_pods: int | None,
    runtime: str | None,
    faults: bool,
    faults_file: Path | None,
) -> None:
    """Serve a Kubernetes API on loopback whose pods are processes of this user: for laptops and tests.

    Its kubeconfig is written to cluster/kubeconfig in the home folder (./.podyard).

    \b
    Example:  podyard local-cluster --port 6443
              kubectl --kubeconfig .podyard/cluster/kubeconfig get pods -w
    """
    from dispatcher.localcluster import server

    _log("INFO")
    server.run(
        home=session.settings.home / "cluster",
        port=port,
        ready=lambda line: click.echo(plaintext.line(line)),
        runtime=runtime or "processes",
        max_pods=max_pods,
        faults=faults,
        faults_file=faults_file,
    )


def worker_queues(rules: router.Router, wanted: Sequence[str]) -> tuple[str, ...]:
    """What a Celery worker consumes. Raises Failure for a queue whose tasks belong into pods."""
    for queue in wanted:
        if rules.route(queue).side == "kubernetes":
            raise Failure(
                f"the queue {queue!r} is on the Kubernetes side ({commands.shown('queues', 'explain', queue)}):"
                f" its tasks would run outside of pods here; use {commands.shown('dispatcher', '--queues', queue)}"
            )
    default = (router.DEFAULT_QUEUE,) if rules.route(None).side == "celery" else ()
    names = tuple(dict.fromkeys((*default, *rules.names("celery"), *wanted)))
    if not names:
        raise Failure(
            "no queue is left for a Celery worker: rules put all on the Kubernetes side; name some by --queues"
        )
    return names


def dispatcher_queues(rules: router.Router, wanted: Sequence[str]) -> tuple[str, ...]:
    """What a dispatcher consumes. Raises Failure for a queue of Celery workers."""
    for queue in wanted:
        if rules.route(queue).side == "celery":
            raise Failure(
                f"the queue {queue!r} is on the Celery side ({commands.shown('queues', 'explain', queue)}); add a rule"
                f' [queues."{queue}"] with side = "kubernetes", or use {commands.shown("worker", "--queues", queue)}'
            )
    names = tuple(dict.fromkeys((*rules.names("kubernetes"), *wanted)))
    if not names:
        raise Failure("no queue is left for a dispatcher: rules put all on the Celery side; name some by --queues")
    return names


def _say_about_patterns(settings: Settings) -> None:
    patterns = [rule.name for rule in settings.router.rules if rule.is_pattern and rule.side == "kubernetes"]
    if patterns:
        named = ", ".join(map(repr, patterns))
        click.echo(
            f"podyard: queues that only a pattern matches ({named}) are consumed if --queues names them", err=True
        )


def _split(queues: str | None) -> list[str]:
    return [name for name in (part.strip() for part in (queues or "").split(",")) if name]


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        # A second signal does not begin the time anew.
        if not stop.is_set():
            stop_bound.begin("scheduler", bound_s=stop_bound.SCHEDULER_S)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    return stop


def _log(level: str) -> None:
    import logging

    logging.basicConfig(level=level.upper(), format=LOG_FORMAT, stream=sys.stderr)
