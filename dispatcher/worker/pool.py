"""KubernetesPool: a Celery pool whose slots are pods. The value of CELERY_CUSTOM_WORKER_POOL is `dispatcher.pool`.

Celery's hub thread calls it; a second thread speaks to the API server (`bridge`, `watching.controller`).
Acknowledgement, ETA, rate limits, retries, revocation, events and Flower stay Celery's own code. This module only
translates: a request becomes an attempt, an event of the other side goes to `deliveries`. What it never does: block the
hub. Semi-internal behaviour of Celery that it relies on is listed in docs/adr/0001-dispatcher-is-a-celery-pool.md.
"""

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from celery.concurrency.base import BasePool
from celery.worker import state as worker_state

from dispatcher.attempts import status_store
from dispatcher.attempts.celery_side import Broken, Housekept, SetLimit, Submit
from dispatcher.launching import claim_client
from dispatcher.manifests import pod_task
from dispatcher.protocol.message import Message
from dispatcher.watching.controller import Controller
from dispatcher.worker import (
    adoption,
    app_config,
    consumed_queue,
    health_checks,
    housekeeping,
    log_command,
    process_health,
    task_events,
    undecodable,
)
from dispatcher.worker.backend_questions import BackendQuestions
from dispatcher.worker.bridge import Bridge
from dispatcher.worker.celery_patches import ack_batching, atomic_take, broker_loss, call_timeouts, switches
from dispatcher.worker.deliveries import Deliveries
from dispatcher.worker.replay import Replay
from dispatcher.worker.requests import Callbacks, TimeLimits
from dispatcher.worker.result_outbox import ResultOutbox
from dispatcher.worker.stall_detector import EVERY_S, Moment

logger = logging.getLogger(__name__)

TURN_S = 2.0
"""How often the hub says that it turns."""
OUTBOX_S = 0.2
"""How often kept outcomes are looked at, while there are any."""
SERVER_ANSWERS_S = 10.0


@dataclass(frozen=True)
class ApiServerCheck:
    """Whether the API server answers: asked on the loop's thread, by the connection that the dispatcher uses."""

    bridge: Bridge
    controller: Controller
    part: ClassVar[str] = "API server"

    def run(self) -> None:
        """Raises what keeps us from it."""
        self.bridge.ask(self.controller.server_answers(), timeout_s=SERVER_ANSWERS_S)


class KubernetesPool(BasePool):
    """One pod per task. `limit` (`--concurrency`) bounds the pods in flight over all queues."""

    # Celery's semaphore admits too many when the pool grows; how many may run is for `Admission` to say.
    uses_semaphore = False
    task_join_will_block = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bridge = Bridge(name="podyard-cluster")
        self._housekeeping = housekeeping.Housekeeping(self._bridge)
        self._timers: list[Any] = []
        self._gave_up: str | None = None
        self._consumer: Any = None
        # In the constructor: Celery builds the consumer's blueprint after the pool was made, and before it is started.
        self.app.steps["consumer"].update(
            {
                adoption.step_for(self),
                broker_loss.SurviveBrokerLoss,
                ack_batching.FewerTrips,
                atomic_take.TakeStep,
            }
        )

    def on_start(self) -> None:
        """Starts the thread that speaks to the API server."""
        # Celery gives (app, hostname) for the start of child processes: that is how a pool learns its worker's name.
        nodename = str(self.options["initargs"][1])
        self._options = app_config.from_app(self.app)
        # Before anybody uses the result backend, which is made with the time-outs that stand there then.
        call_timeouts.shorten(self.app)
        pod_task.register(self.app)
        questions = BackendQuestions(self.app, nodename=nodename)
        self._deliveries = Deliveries(
            self.app,
            options=self._options,
            bridge=self._bridge,
            replay=Replay(self.app, hostname=nodename, keeps_logs=self._options.log_folder is not None),
            outbox=ResultOutbox(health_checks.ResultBackendCheck(self.app)),
            questions=questions,
        )
        self._deliveries.default_limits = TimeLimits(
            hard_s=self.options.get("timeout"), soft_s=self.options.get("soft_timeout")
        )
        self._controller = Controller(
            self._options,
            owner=nodename,
            limit=self.limit,
            celery=self._bridge,
            questions=questions,
            claim_store=claim_client.claim_store_of(self.app.backend),
        )
        self.log_reader = log_command.LogReader(self._bridge, self._controller)
        self._bridge.start(self._controller.run())
        self._health = process_health.HealthReporter(
            kind="dispatcher", name=nodename, folder=self._options.health_folder, checks=self._checks(questions)
        )
        self._health.start()

    def _checks(self, questions: BackendQuestions) -> Iterator[process_health.PartCheck]:
        """What a dispatcher needs from outside."""
        yield health_checks.BrokerCheck(self.app)
        yield ApiServerCheck(self._bridge, self._controller)
        if questions.stores_results:
            yield health_checks.ResultBackendCheck(self.app)
        if self._options.database_url:
            yield health_checks.DatabaseCheck(status_store.PodStore(self._options.database_url))

    def register_with_event_loop(self, loop: Any) -> None:
        """Hooks the bridge into Celery's event loop; again after each reconnect."""
        loop.add_reader(self._bridge.fileno(), self._on_events)
        # Some releases of Celery drop all timers with a connection, 5.7 keeps them: cancelled first, none runs twice.
        for timer in self._timers:
            timer.cancel()
        self._timers = [
            loop.call_repeatedly(TURN_S, self._health.turned),
            loop.call_repeatedly(EVERY_S, self._turned),
            loop.call_repeatedly(OUTBOX_S, self._deliveries.turn),
        ]
        self._deliveries.use_timers(loop)

    def _turned(self) -> None:
        self._deliveries.stalls.turned(Moment.now())

    def _on_events(self) -> None:
        for event in self._bridge.events():
            if isinstance(event, Housekept):
                self._housekeeping.done(event)
            elif isinstance(event, Broken):
                logger.critical("the cluster's side has given up, the process ends: %s", event.why)
                self._gave_up = event.why
                # Celery's loop looks at this flag and stops as at SIGTERM; its value becomes the exit code.
                worker_state.should_stop = 1
            else:
                self._deliveries.take(event)

    def on_stop(self) -> None:
        """Leaves the pods alone: they run on, and the next dispatcher adopts them."""
        self._health.stop(why=self._gave_up or process_health.failure(sys.exc_info()[1]))
        self._housekeeping.stop()
        # Last, for it may take seconds (claims and slots are given back): by
        # then nobody asks for the health of this process.
        self._bridge.stop()

    on_terminate = on_stop

    def on_apply(
        self,
        target: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],  # Celery sends none
        **options: Any,
    ) -> Any:
        """Takes a request in. `target`, Celery's tracer, is called for Celery's own tasks alone: pods run bodies."""
        name, task_id, request, body, content_type, content_encoding = args
        callbacks = Callbacks(
            accept=options["accept_callback"],
            done=options["callback"],
            error=options["error_callback"],
            timeout=options["timeout_callback"],
        )
        if name in housekeeping.TASKS:
            self._housekeeping.run(target, args, callbacks)
            return None
        decoded = adoption.decoded(self.app, body, content_type, content_encoding)
        consumed_from = consumed_queue.of(getattr(callbacks.request, "message", None))
        message = Message.from_request(name, task_id, request, decoded, consumed_from=consumed_from)
        limits = TimeLimits(hard_s=options.get("timeout"), soft_s=options.get("soft_timeout"))
        held, attempt = self._deliveries.hold(message, callbacks, limits=limits)
        self._bridge.send(Submit(attempt=attempt))
        # Celery keeps this only by a weak reference, and terminates by it; `deliveries` holds it until its end.
        return held

    def terminate_job(self, pid: Any, signal: Any = None) -> None:
        """Deletes the pod that Celery knows as the process `pid`."""
        self._deliveries.terminate(pid, signal)

    def grow(self, n: int = 1) -> None:
        """Allows `n` more pods in flight."""
        self._set_limit(self.limit + n)

    def shrink(self, n: int = 1) -> None:
        """Allows `n` fewer; pods that run are left alone."""
        self._set_limit(max(1, self.limit - n))

    def _set_limit(self, limit: int) -> None:
        self.limit = limit
        self._bridge.send(SetLimit(limit=limit))

    def _get_info(self) -> dict[str, Any]:
        queues = self._consumer.task_consumer.queues if self._consumer is not None else ()
        profiles = {queue.name: self._deliveries.profile_for(queue.name) for queue in queues}
        facts = {
            "deployment": self._options.deployment,
            "away": self._health.away(),
            "images": {name: profile.image or self._options.image or "" for name, profile in profiles.items()},
        }
        return {**super()._get_info(), **self._controller.stats(), **facts}

    def consumer_made(self, consumer: Any) -> None:
        """The worker has a consumer, which does not consume yet."""
        undecodable.listen(consumer)
        if switches.is_on(self.app, "event_batching"):
            task_events.batch(consumer)

    def consumer_ready(self, consumer: Any) -> None:
        """The worker consumes: requests of pods found in the cluster can be rebuilt from now on."""
        consumed_queue.note(consumer.task_consumer)
        self._consumer = consumer
        self._deliveries.consumer_ready(consumer)
