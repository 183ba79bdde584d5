"""The scheduler's process: one loop that listens, merges, records and sends, and two threads beside it.

The loop is woken by reports, so a ready task is sent within milliseconds. It survives the absence of the database, the
broker and the result backend: it says so once, waits, and goes on. One process at a time acts; others stand by, and
the lease that every transaction renews keeps a process out that lost it.
"""

import contextlib
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from dispatcher.worker import health_checks, process_health
from routing.config.settings import Settings
from routing.results import collector, reported, sweeper
from routing.scheduling import dagfolder, lease_holder, outage, presence, renderer, scheduler, sender, unread
from routing.store import entries, store_errors
from routing.store.store import Store
from routing.worker import celery_app

log = logging.getLogger(__name__)

# Three renewals may fail before the role is free.
LEASE_S = 15.0
RENEW_S = 4.0
# A scheduler of this machine that died is followed so soon; one elsewhere when its lease has run out.
STAND_BY_S = 0.5
POLL_S = 0.4
"""The backstop for triggers; a wake-up makes it at once."""
MARK_S = 0.02
"""How soon after sending the record says so."""
LINGER_S = 0.015
LINGER_FROM = 8
"""Under load (so many reports in one turn) the next turn waits a little, so that it merges more at once."""
# In one transaction, whose rows are locked until it is committed.
MERGE_MAX = 1000
KEEP_MAX = 5000
"""Reports in memory at most while the database is away; the others wait in the result backend."""
# As many keys as one MGET of the collector takes.
SWEEP_PAGE = 500
REASONS_S = 2.0
# Much longer than `MARK_S`: what is only not marked yet must not be sent twice.
UNSENT_S = 5.0
AUDIT_EVERY_S = 5.0
"""How often the record is asked for everything, whether it has news or not: one run at a time is read again."""
JOIN_S = 1.0
"""The threads beside the loop are not worth a longer wait: what they write is written again by the next scheduler."""


def run(settings: Settings, *, stop: threading.Event) -> None:
    """Schedule until `stop` is set. Raises SchemaError if the database does not fit this code."""
    store = Store.open(settings.database.url)
    app = celery_app.build(settings, "scheduler")
    service = Service(settings, store, sending=sender.Sender(app), collecting=collector.Collector(app.backend))
    folder = dagfolder.DagFolder(
        settings.dags.folder,
        store,
        timeout_s=settings.dags.load_timeout_s,
        refresh_s=settings.dags.refresh_s,
        stop=stop,
    )
    around = presence.Presence(app, store, stop=stop)
    health = process_health.HealthReporter(
        kind=lease_holder.ROLE,
        name=f"{lease_holder.ROLE}@{socket.gethostname()}",
        folder=settings.health.folder,
        checks=[
            health_checks.DatabaseCheck(store),
            health_checks.BrokerCheck(app),
            health_checks.ResultBackendCheck(app),
        ],
        is_silent=True,
    )
    service.turned = health.turned
    try:
        health.start()
        # The threads start after it: a scheduler that stands by must write neither DAGs nor consumers.
        if not service.stand_by(stop):
            return
        folder.start()
        around.start()
        service.loop(stop, consumed=lambda: around.queues)
    finally:
        health.stop(why=process_health.failure(sys.exc_info()[1]))
        # The processes that load files first: their thread waits for them.
        folder.close()
        service.close()
        for thread in (folder, around):
            if thread.ident is not None:
                thread.join(timeout=JOIN_S)
        store.close()


@dataclass(kw_only=True)
class _Due:
    """When things are to be done, by the monotonic clock."""

    poll_mono_s: float = 0.0
    sweep_mono_s: float = 0.0
    reasons_mono_s: float = 0.0
    unsent_mono_s: float = 0.0
    renew_mono_s: float = 0.0
    audit_mono_s: float = 0.0


@dataclass(kw_only=True)
class _Pending:
    """What waits between two turns."""

    reports: list[reported.Outcome] = field(default_factory=list)
    """Reports that are not merged yet: kept until a transaction took them."""
    expired: list[reported.EndReport] = field(default_factory=list)
    """Ends whose results are gone: the table of pods is asked about them first."""
    sent: list[str] = field(default_factory=list)
    """Messages that the broker has and the record does not know yet."""
    has_more: bool = False
    is_busy: bool = False
    is_restart: bool = True
    """The next turn asks the record for everything."""
    must_send_all: bool = True
    """All messages that the record calls unsent are to be sent, not only old ones."""


class Service:
    """The loop's state: nothing that the record does not hold, but for a moment."""

    def __init__(
        self, settings: Settings, store: Store, *, sending: sender.Sender, collecting: collector.Collector
    ) -> None:
        self._settings = settings
        self._store = store
        self._sender = sending
        self._collector = collecting
        # Two sweeps, beside the 20 s that the key holds (ADR 3): after an outage of the result
        # backend workers need a second to beat again.
        self._sweeper = sweeper.Sweeper(collecting, lost_after_s=2 * settings.scheduler.sweep_s)
        self._unread = unread.Unread(settings.router)
        self._render = renderer.Renderer()
        self._scheduler = scheduler.Scheduler(router=settings.router, limits=settings.scheduler, render=self._render)
        self._holder = lease_holder.name()
        self._due = _Due()
        self._pending = _Pending()
        self._sweep_after = ""
        self._consumed: frozenset[str] | None = None
        self._database = outage.Outage("the database")
        self._broker = outage.Outage("the broker")
        self._results = outage.Outage("the result backend")
        self.turned: Callable[[], None] = lambda: None
        """Called at each turn of the loop, as a heartbeat."""

    # --- who acts

    def stand_by(self, stop: threading.Event) -> bool:
        """Wait until this process may act. False if it was stopped before. Raises SchemaError."""
        is_logged = False
        while not stop.is_set():
            self.turned()
            try:
                # In every round: `db upgrade` may run while this process stands by (D10).
                self._store.require_schema()
                holder = self._take_lease()
                self._database.end()
            except store_errors.DatabaseUnavailable as error:
                stop.wait(self._database.fail(error))
                continue
            if holder is None:
                # Whoever had the role may have died between its commit and its messages.
                self._pending.is_restart = self._pending.must_send_all = True
                self._due = _Due()
                return True
            if not is_logged:
                log.info("standing by: another scheduler is at work: holder=%s", holder)
                is_logged = True
            stop.wait(STAND_BY_S)
        return False

    def _take_lease(self) -> str | None:
        with self._store.writing() as book:
            holder = book.take(lease_holder.ROLE, self._holder, lease_s=LEASE_S, now=_now())
            # In the same transaction: two that find it dead take it one after the other.
            if holder is not None and lease_holder.is_dead_here(holder):
                book.end_lease(lease_holder.ROLE, holder)
                holder = book.take(lease_holder.ROLE, self._holder, lease_s=LEASE_S, now=_now())
        return holder

    def close(self) -> None:
        """Let another scheduler take over at once."""
        # A lease that cannot be given back runs out by itself.
        with contextlib.suppress(store_errors.RecordError), self._store.writing() as book:
            # Else the next scheduler sends them again, which does no harm and costs a claim each.
            if self._pending.sent:
                book.mark_sent(self._pending.sent, at=_now())
            book.end_lease(lease_holder.ROLE, self._holder)
        self._sender.close()
        self._render.close()

    # --- the loop

    def loop(self, stop: threading.Event, *, consumed: Callable[[], frozenset[str] | None]) -> None:
        """Turn until stopped. `consumed` gives the queues that somebody consumes, None while that is unknown."""
        while not stop.is_set():
            self.turned()
            try:
                self._once(stop, consumed)
                self._database.end()
            except store_errors.DatabaseUnavailable as error:
                self._scheduler.forget()
                self._pending.is_restart = True
                stop.wait(self._database.fail(error))
            except store_errors.Conflict as error:
                log.debug("read again: %s", error)
                self._scheduler.forget()
                # Somebody else wrote, such as `runs cancel`: the record knows more than this process.
                self._due.poll_mono_s = 0.0
            except store_errors.LeaseLost:
                log.warning("another scheduler has taken over: standing by")
                self._scheduler.forget()
                if not self.stand_by(stop):
                    return
            # The one broad except of this loop: whatever it was, its transaction was
            # rolled back, and the next turn reads again.
            except Exception:
                log.exception("a turn of the scheduler failed")
                self._scheduler.forget()
                self._pending.is_restart = True
                stop.wait(1.0)

    def _once(self, stop: threading.Event, consumed: Callable[[], frozenset[str] | None]) -> None:
        is_wake = self._listen(stop)
        now_mono_s = time.monotonic()
        if self._pending.expired:
            self._settle_expired()
        # A sweep would take for lost what stands in reports that are not read yet.
        if now_mono_s >= self._due.sweep_mono_s and not self._collector.has_more:
            self._sweep(now_mono_s)
        is_poll = self._is_poll(now_mono_s, is_wake=is_wake)
        if (
            self._pending.reports
            or self._pending.sent
            or self._pending.has_more
            or is_poll
            or now_mono_s >= self._due.renew_mono_s
        ):
            self._turn(now_mono_s, is_poll=is_poll)
        if now_mono_s >= self._due.unsent_mono_s:
            self._send_unsent(now_mono_s)
        # Looked at again as soon as it changes: people wait for the line that says so.
        queues = consumed()
        if now_mono_s >= self._due.reasons_mono_s or queues != self._consumed:
            self._due.reasons_mono_s, self._consumed = now_mono_s + REASONS_S, queues
            self._tell_reasons(queues)

    def _listen(self, stop: threading.Event) -> bool:
        """Take reports; returns whether somebody asked to look at the record."""
        # The database is away: what is not taken waits in the result backend, where it survives this process.
        if len(self._pending.reports) >= KEEP_MAX:
            return False
        try:
            if self._pending.is_busy:
                stop.wait(LINGER_S)
            reports = self._collector.listen(self._wait_s(), now=_now())
            if self._results.end():
                # It may be the broker's server, too: what it lost was claims and messages alike.
                self._sweeper.suspect(now=_now())
        except collector.ResultsUnavailable as error:
            # Not for the whole back-off: the rest of the turn needs no result backend.
            stop.wait(min(self._results.fail(error), POLL_S))
            return False
        self._pending.reports.extend(reports.outcomes)
        self._pending.expired.extend(reports.expired)
        self._pending.is_busy = len(reports.outcomes) >= LINGER_FROM
        return reports.is_wake

    def _wait_s(self) -> float:
        if self._pending.has_more or self._pending.reports or self._pending.is_restart:
            return 0.0
        next_mono_s = min(
            self._due.poll_mono_s, self._due.sweep_mono_s, self._due.unsent_mono_s, self._due.reasons_mono_s
        )
        wait_s = max(0.001, next_mono_s - time.monotonic())
        return min(wait_s, MARK_S) if self._pending.sent else wait_s

    def _is_poll(self, now_mono_s: float, *, is_wake: bool) -> bool:
        """Whether the record is to be asked for what this process does not know."""
        if is_wake or self._pending.is_restart:
            self._due.sweep_mono_s = 0.0  # a cancelled run has attempts to stop
            return True
        if now_mono_s < self._due.poll_mono_s:
            return False
        if now_mono_s >= self._due.audit_mono_s:
            self._due.audit_mono_s = now_mono_s + AUDIT_EVERY_S
            return True
        with self._store.reading() as book:
            has_news = self._scheduler.has_news(book, now=_now())
        if has_news:
            self._due.sweep_mono_s = 0.0
        else:
            self._due.poll_mono_s = now_mono_s + POLL_S
        return has_news

    def _turn(self, now_mono_s: float, *, is_poll: bool) -> None:
        """One transaction, then the messages that it recorded."""
        reports, sent = self._pending.reports[:MERGE_MAX], list(self._pending.sent)
        with self._store.writing() as book:
            now = _now()
            # Before anything is written; PostgreSQL's row lock then keeps another
            # from taking the role until the commit.
            book.hold(lease_holder.ROLE, self._holder, lease_s=LEASE_S, now=now)
            # With the next turn, which `MARK_S` brings soon: sending opens no transaction of its own.
            book.mark_sent(sent, at=now)
            result = self._scheduler.turn(book, reports, now=now, now_mono_s=now_mono_s, is_poll=is_poll)
            retry_at = book.next_retry_at() if is_poll else result.retry_at
        # Only now, when they are committed: after a rollback they are merged again.
        del self._pending.reports[: len(reports)]
        del self._pending.sent[: len(sent)]
        self._due.renew_mono_s = now_mono_s + RENEW_S
        self._pending.has_more = result.has_more
        if is_poll:
            self._pending.is_restart = False
            self._due.poll_mono_s = now_mono_s + POLL_S
        if retry_at is not None:
            self._due.poll_mono_s = min(self._due.poll_mono_s, now_mono_s + max(0.0, (retry_at - now).total_seconds()))
        # After the commit, never before it: a message whose row was rolled back would run a task that nobody knows.
        if result.unsent:
            self._send(result.unsent, now_mono_s)

    def _send(self, unsent: Sequence[entries.Unsent], now_mono_s: float, *, again: bool = False) -> None:
        """Send what is recorded; what cannot be sent stays `recorded` and is found by `_send_unsent`."""
        try:
            self._sender.send(unsent, again=again)
            if self._broker.end():
                self._sweeper.suspect(now=_now())
        except sender.BrokerUnavailable as error:
            self._due.unsent_mono_s = now_mono_s + self._broker.fail(error)
            # Not only old ones: which of the batch the broker took nobody knows.
            self._pending.must_send_all = True
            return
        self._pending.sent.extend(attempt.id for attempt in unsent)

    def _send_unsent(self, now_mono_s: float) -> None:
        """Send messages again of which it is not known that the broker has them."""
        if self._pending.sent:
            self._due.unsent_mono_s = now_mono_s + MARK_S  # the record does not know of those yet
            return
        with self._store.reading() as book:
            before = _now() - timedelta(seconds=0 if self._pending.must_send_all else UNSENT_S)
            unsent = book.unsent(before=before, limit=sender.BATCH)
        self._due.unsent_mono_s = now_mono_s + UNSENT_S
        if unsent:
            self._send(unsent, now_mono_s, again=True)
        if len(unsent) < sender.BATCH and not self._broker.is_on:
            self._pending.must_send_all = False
        elif not self._broker.is_on:
            self._due.unsent_mono_s = now_mono_s

    # --- backstops

    def _sweep(self, now_mono_s: float) -> None:
        """Look at a page of open attempts, whether anybody reported or not."""
        with self._store.reading() as book:
            rows = book.open_attempts(
                after=self._sweep_after, limit=SWEEP_PAGE, ended_before=_now() - timedelta(seconds=sweeper.ENDED_S)
            )
        # A page each turn, so that reports are merged between two pages.
        is_last = len(rows) < SWEEP_PAGE
        self._due.sweep_mono_s = now_mono_s + (self._settings.scheduler.sweep_s if is_last else 0.0)
        self._sweep_after = "" if is_last else rows[-1].id
        reported_ids = {one.attempt_id for one in (*self._pending.reports, *self._pending.expired)}
        # What is pending has been reported and not merged: the row of before would look lost.
        rows = [row for row in rows if row.id not in reported_ids]
        try:
            if not rows:
                # Asked for its side effect: the marker has to stand before the first claim does.
                self._collector.complete_since(now=_now())
                return
            found = self._sweeper.inspect(rows, now=_now(), now_mono_s=now_mono_s, backlog=self._sender.backlog)
            self._pending.reports.extend(found.outcomes)
            self._resend(found.resend)
            if found.revoke:
                self._sender.revoke(found.revoke)
        except collector.ResultsUnavailable as error:
            self._results.fail(error)
        except sender.BrokerUnavailable as error:
            self._broker.fail(error)

    def _settle_expired(self) -> None:
        """Ends whose results are gone: of a pod that the table of pods knows the dispatcher tells what it was."""
        expired = {one.attempt_id: one for one in self._pending.expired}
        with self._store.reading() as book:
            asked = [one for one in book.messages(expired) if one.pod_end is not None]
        try:
            for one in asked:
                # Before the message, so that whoever gets it makes no second pod (B23).
                self._collector.doubt(one.id)
            if asked:
                self._sender.send(asked, again=True)
        except collector.ResultsUnavailable as error:
            self._results.fail(error)
            return
        except sender.BrokerUnavailable as error:
            self._broker.fail(error)
            return
        known = {one.id for one in asked}
        log.warning("results were gone before they were read: count=%d pods_asked=%d", len(expired), len(known))
        self._pending.sent.extend(known)
        self._pending.reports.extend(end for attempt_id, end in expired.items() if attempt_id not in known)
        self._pending.expired.clear()

    def _resend(self, attempt_ids: Sequence[str]) -> None:
        if not attempt_ids:
            return
        with self._store.reading() as book:
            unsent = book.messages(attempt_ids)
        log.warning("messages got lost, sending them again: count=%d", len(unsent))
        self._sender.send(unsent, again=True)
        self._pending.sent.extend(attempt_ids)

    def _tell_reasons(self, consumed: frozenset[str] | None) -> None:
        """Write down why attempts wait, and end those whose messages nobody took in time."""
        with self._store.reading() as book:
            waiting = book.waiting_queues()
        if not waiting:
            return
        with self._store.writing() as book:
            book.hold(lease_holder.ROLE, self._holder, lease_s=LEASE_S, now=_now())
            self._unread.record_waits(book, consumed, now=_now())
        try:
            with self._store.reading() as book:
                ended, revoke = self._unread.overdue(book, now=_now(), block=self._collector.block)
            self._pending.reports.extend(ended)
            if revoke:
                self._sender.revoke(revoke)
        except collector.ResultsUnavailable as error:
            self._results.fail(error)
        except sender.BrokerUnavailable as error:
            self._broker.fail(error)


def _now() -> datetime:
    return datetime.now(UTC)
