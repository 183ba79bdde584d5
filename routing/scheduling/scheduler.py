"""The scheduler's turn: what was reported is merged, what became ready is recorded, all in one transaction.

A turn looks at the record and closes the gap; it may be repeated, interrupted or done by another process. Rows are
committed before their messages are sent. It talks to the database only: `service` listens and sends.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import uuid4

from routing import router as routers
from routing.config.sections import Scheduler as Limits
from routing.errors import TaskFailed
from routing.results import report_merge, reported
from routing.scheduling import learning, messages, ready, renderer, retrying, runs
from routing.store import entries, ledger, messagewaits

log = logging.getLogger(__name__)

SEND_MAX = 500
"""Attempts recorded in one turn: a large run begins to work before all of it is recorded."""
# Runs read in one turn: each with all of its tasks.
START_MAX = 50
RETRIES_MAX = 500
RENDER_MAX_S = 2.0
"""After so long in templates of pods, the rest of a turn's tasks waits for the next one."""
AUDIT_S = 60.0
"""A run is read again from the record after so long, whatever is remembered of it."""
REASON_MAX_CHARS = 500


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a turn leaves to do: messages to send, whether more is ready than one turn takes."""

    unsent: Sequence[entries.Unsent] = ()
    has_more: bool = False
    retry_at: datetime | None = None
    """When the first of the retries that this turn decided on is due."""


@dataclass(kw_only=True)
class _Work:
    """One turn's transaction and what it gathered so far."""

    book: ledger.Ledger
    now: datetime
    now_mono_s: float
    moves: dict[int, entries.TaskMove] = field(default_factory=dict)
    results: list[tuple[int, str, Any]] = field(default_factory=list)
    touched: dict[int, runs.Run] = field(default_factory=dict)
    is_cut_short: bool = False
    """More may be ready than was recorded."""


class Scheduler:
    """The runs at work, and one turn after the other."""

    def __init__(self, *, router: routers.Router, limits: Limits, render: renderer.Renderer) -> None:
        self._router = router
        self._limits = limits
        self._render = render
        self._runs = runs.Runs()

    def forget(self) -> None:
        """Drop what is remembered, after a transaction that failed: the record is the truth."""
        self._runs.clear()

    def has_news(self, book: ledger.Ledger, *, now: datetime) -> bool:
        """Whether the record holds something that this process does not know: a turn with `is_poll` is due."""
        # Cheap reads, so that an idle scheduler opens no writing transaction: on
        # SQLite that would keep all other writers out.
        if book.queued_runs(limit=1) or book.due_retries(now=now, limit=1):
            return True
        return {run.row.id for run in self._runs} != set(book.runs_in("running"))

    def turn(
        self,
        book: ledger.Ledger,
        reports: Sequence[reported.Outcome],
        *,
        now: datetime,
        now_mono_s: float,
        is_poll: bool,
    ) -> Result:
        """Do one turn in the transaction `book`. With `is_poll` the record is asked for new runs and due retries.

        Raises Conflict and DatabaseUnavailable; the caller then rolls back, calls `forget` and tries again.
        """
        work = _Work(book=book, now=now, now_mono_s=now_mono_s)
        if reports:
            self._merge(work, reports)
        retries = self._flush(work)  # before the record is asked: a run that is read again must know of these ends
        if is_poll:
            self._start_runs(work)
            self._find_running(work)
            self._find_retries(work)
        retries += self._flush(work)
        unsent = self._record_ready(work)
        retries += self._flush(work)
        self._end_runs(work)
        has_more = work.is_cut_short and any(run.ready for run in self._runs)
        return Result(unsent=unsent, has_more=has_more, retry_at=min(retries, default=None))

    # --- merging

    def _merge(self, work: _Work, reports: Sequence[reported.Outcome]) -> None:
        # Locks the rows until the commit, so that nobody merges into them in between.
        rows = {row.id: row for row in work.book.attempts({one.attempt_id for one in reports})}
        before = {attempt_id: _facts(row.facts) for attempt_id, row in rows.items()}
        after = dict(before)
        verdicts: dict[str, reported.EndReport] = {}
        for report in reports:
            row = after.get(report.attempt_id)
            if row is None:
                continue  # not ours: another installation's, or a row that was deleted
            answer = report_merge.merge(row, report)
            if isinstance(answer, report_merge.Apply):
                after[report.attempt_id] = answer.facts
                if isinstance(report, reported.EndReport) and not row.is_final:
                    verdicts[report.attempt_id] = report
        # By identity: `merge` gives a new object where something changes, and
        # several reports of one attempt are one write.
        changed = [attempt_id for attempt_id, facts in after.items() if facts is not before[attempt_id]]
        work.book.save_facts((one, before[one].state, _columns(after[one])) for one in changed)
        for attempt_id in changed:
            self._follow(work, rows[attempt_id], after[attempt_id], verdicts.get(attempt_id))

    def _follow(
        self, work: _Work, row: entries.OpenAttempt, facts: report_merge.Facts, verdict: reported.EndReport | None
    ) -> None:
        """Let the task instance follow its latest attempt."""
        if row.task_state not in ("queued", "running"):
            return  # the task has ended without it
        run = self._get(work, row.run)
        # The run has ended, perhaps cancelled: the verdict stands in the attempt's row, and nothing follows.
        if run is None:
            return
        instance = run.instances[row.task_id]
        if instance.attempts != row.number:
            return  # an older attempt: evidence, not news
        if verdict is None:
            if facts.state == "running" and row.task_state == "queued":
                work.moves[instance.id] = entries.TaskMove(
                    task_instance=instance.id, state="running", started_at=facts.started_at
                )
            return
        move = self._judge(work, run, row, facts, verdict)
        work.moves[instance.id] = move
        # None gets no row: whoever asks for a result that is missing is given None.
        if move.state == "success" and verdict.value is not None:
            work.results.append((instance.id, row.id, verdict.value))
        if move.state in ready.FINAL:
            self._settle(work, run, run.progress.end([(row.task_id, move.state)]))

    def _judge(
        self,
        work: _Work,
        run: runs.Run,
        row: entries.OpenAttempt,
        facts: report_merge.Facts,
        verdict: reported.EndReport,
    ) -> entries.TaskMove:
        """What becomes of the task instance whose latest attempt ended."""
        instance = run.instances[row.task_id]
        success = entries.TaskMove(
            task_instance=instance.id, state="success", started_at=facts.started_at, ended_at=facts.ended_at
        )
        if verdict.verdict == "succeeded":
            return success
        why = f"{verdict.reason}: {verdict.message}"[:REASON_MAX_CHARS]
        if verdict.verdict == "revoked":
            return replace(success, state="failed", reason=why)
        # Before any budget is asked: nothing was to be done, so nothing is tried again.
        if verdict.is_skip:
            return replace(success, state="skipped", reason=why)
        profile = self._route(run.version.tasks[row.task_id]).profile
        grown = learning.after_growth(instance.lessons, verdict, profile)
        answer = retrying.decide(
            cause=verdict.cause,
            used=retrying.Used(
                attempts=instance.attempts,
                infra_failures=instance.infra_failures,
                growths=instance.lessons.growths,
            ),
            budget=self._budget(run, row.task_id),
            now=work.now,
            may_grow=grown is not None,
        )
        if isinstance(answer, retrying.GiveUp):
            why_not = learning.why_no_growth(verdict, profile)
            return replace(success, state="failed", reason=f"{why} ({answer.reason}{why_not})")
        if answer.is_growth and grown is not None:
            instance.lessons = grown
            why = f"{why}; tried again with {learning.memory_words(grown)}"
        elif answer.is_infrastructure:
            instance.lessons = learning.after_node(instance.lessons, verdict, profile)
        # In memory before the commit: where that fails, the caller has everything forgotten (`forget`).
        instance.infra_failures += answer.is_infrastructure
        return entries.TaskMove(
            task_instance=instance.id,
            state="up_for_retry",
            infra_failures=instance.infra_failures,
            lessons=instance.lessons.to_json() or None,
            next_try_at=answer.at,
            started_at=facts.started_at,
            reason=why,
        )

    def _budget(self, run: runs.Run, task_id: str) -> retrying.Budget:
        task = run.version.tasks[task_id]
        return retrying.Budget(
            retries=task.retries,
            retry_delay_s=task.retry_delay_s,
            infra_retries=self._limits.infra_retries,
            infra_retry_delay_s=self._limits.infra_retry_delay_s,
        )

    # --- what is to be done

    def _start_runs(self, work: _Work) -> None:
        for run in work.book.queued_runs(limit=START_MAX):
            # False where somebody cancelled it since it was read.
            if work.book.move_run(run, "running", at=work.now):
                self._get(work, run)

    def _find_running(self, work: _Work) -> None:
        """Read runs that this process does not know, and forget those that somebody else ended."""
        running = set(work.book.runs_in("running"))
        self._runs.drop(run.row.id for run in self._runs if run.row.id not in running)
        oldest = self._runs.oldest()
        # One in each poll, the oldest: all of them at once would hold up a turn.
        if oldest is not None and work.now_mono_s - oldest.built_mono_s > AUDIT_S:
            self._runs.drop([oldest.row.id])
        for run in islice((run for run in sorted(running) if run not in self._runs), START_MAX):
            self._get(work, run)

    def _find_retries(self, work: _Work) -> None:
        for run_id, task_id in work.book.due_retries(now=work.now, limit=RETRIES_MAX):
            run = self._get(work, run_id)
            if run is not None:
                # A poll finds it again until its attempt is recorded; in a mapping it is there once.
                run.ready.setdefault(task_id)

    def _get(self, work: _Work, run_id: int) -> runs.Run | None:
        run, settled = self._runs.get(work.book, run_id, now_mono_s=work.now_mono_s)
        if run is not None:
            work.touched[run_id] = run
            self._settle(work, run, settled)
        return run

    def _settle(self, work: _Work, run: runs.Run, settled: ready.Settled) -> None:
        """Take over what follows from ends: tasks to send, and tasks that ended unrun."""
        run.ready.update(dict.fromkeys(settled.ready))
        for task_id, state in settled.ended:
            instance = run.instances[task_id]
            work.moves[instance.id] = entries.TaskMove(task_instance=instance.id, state=state, ended_at=work.now)

    def _flush(self, work: _Work) -> list[datetime]:
        """Write what was gathered; gives the times of retries."""
        retries = [move.next_try_at for move in work.moves.values() if move.next_try_at is not None]
        work.book.move_tasks(work.moves.values())
        work.book.insert_xcoms(work.results)
        work.moves = {}
        work.results = []
        return retries

    # --- recording

    def _record_ready(self, work: _Work) -> list[entries.Unsent]:
        """Record attempts of ready tasks, the runs by turns, as many as the limits let."""
        if not any(run.ready for run in self._runs):
            return []
        # A query and no counter: what is counted by hand drifts with the first error between two steps.
        room = min(SEND_MAX, self._limits.max_active_tasks - work.book.count_open())
        chosen = list(islice(_by_turns([run for run in self._runs if run.ready]), max(0, room)))
        # One query for all of them; values are not kept in memory with the runs.
        results = work.book.results(_input_instances(chosen))
        new, refused = self._attempts(work, chosen, results)
        work.book.move_tasks(
            entries.TaskMove(task_instance=attempt.task_instance, state="queued", attempts=attempt.number)
            for attempt in new
        )
        work.book.insert_attempts(new)
        # Those behind stay ready: templates have taken too long, and the next turn goes on with them.
        for run, task_id in chosen[: len(new)]:
            del run.ready[task_id]
            run.instances[task_id].attempts += 1
        # Recorded like any other, then ended: the failure has an attempt, its reason and its budget.
        if refused:
            self._merge(work, refused)
        work.is_cut_short = len(new) >= SEND_MAX or len(new) < len(chosen) or bool(refused)
        ended = {one.attempt_id for one in refused}
        return [
            entries.Unsent(id=attempt.id, queue=attempt.queue, message=attempt.message)
            for attempt in new
            if attempt.id not in ended
        ]

    def _attempts(
        self, work: _Work, chosen: Iterable[tuple[runs.Run, str]], results: Mapping[int, Any]
    ) -> tuple[list[entries.NewAttempt], list[reported.EndReport]]:
        """Attempts of the chosen tasks, or of the first of them where templates take long, and the failures of those
        whose message cannot be made."""
        new: list[entries.NewAttempt] = []
        refused = []
        began_s = self._render.spent_s
        for run, task_id in chosen:
            attempt, failure = self._attempt(work, run, run.version.tasks[task_id], results)
            new.append(attempt)
            if failure is not None:
                refused.append(reported.refused(attempt.id, str(failure), failure.details, at=work.now))
            if self._render.spent_s - began_s > RENDER_MAX_S:
                break
        return new, refused

    def _attempt(
        self, work: _Work, run: runs.Run, task: Any, results: Mapping[int, Any]
    ) -> tuple[entries.NewAttempt, TaskFailed | None]:
        instance = run.instances[task.task_id]
        number = instance.attempts + 1
        # Made before its message: templates of pods may name it, and it is the Celery id.
        attempt_id, failure = str(uuid4()), None
        occasion = messages.Occasion(
            dag_file=run.version.dag.file,
            dag_id=run.row.dag_id,
            run_id=run.row.run_id,
            logical_date=run.row.logical_date,
            conf=run.row.conf,
            try_number=number,
            inputs={name: results.get(run.instances[name].id) for name in task.inputs},
            params=run.version.dag.params,
            attempt_id=attempt_id,
            hints=instance.lessons,
        )
        try:
            message = messages.build(task, occasion, render=self._render)
        except TaskFailed as error:
            # The column has to hold something; it is never sent.
            message, failure = messages.unsendable(task, occasion), error
        route = self._route(task)
        attempt = entries.NewAttempt(
            id=attempt_id,
            task_instance=instance.id,
            number=number,
            side=route.side,
            queue=route.queue,
            rule=route.rule,
            message=message,
            created_at=work.now,
            # Right for most within milliseconds; `unread` writes what is really so.
            waiting_reason=messagewaits.in_line(route.side),
            wait_kind=messagewaits.QUEUED,
        )
        return attempt, failure

    def _route(self, task: Any) -> routers.Route:
        """Where a task goes; a pod operator always to a Kubernetes side."""
        if task.operator != "pod":
            return self._router.route(task.queue)
        route = self._router.route(task.queue or messages.POD_QUEUE)
        # A queue of Celery's has no pods. The task goes to the side that can run it, whatever was meant.
        return route if route.side == "kubernetes" else self._router.route(messages.POD_QUEUE)

    def _end_runs(self, work: _Work) -> None:
        for run_id, run in work.touched.items():
            if not run.progress.is_done:
                continue
            state = run.progress.outcome()
            # The guard decides whether it is ours to end: `runs cancel` may have been faster.
            if work.book.move_run(run_id, state, at=work.now, reason=_why_failed(run) if state == "failed" else None):
                log.info("run ended: dag_id=%s run_id=%s state=%s", run.row.dag_id, run.row.run_id, state)
            self._runs.drop([run_id])


def _by_turns(waiting: Iterable[runs.Run]) -> Iterable[tuple[runs.Run, str]]:
    """One task of each run, then again, so that a large run does not keep a small one waiting."""
    # A copy, since tasks leave `ready` while the caller goes on.
    queues = [(run, iter(list(run.ready))) for run in waiting]
    while queues:
        left = []
        for run, tasks in queues:
            task_id = next(tasks, None)
            if task_id is not None:
                yield run, task_id
                left.append((run, tasks))
        queues = left


def _input_instances(chosen: Iterable[tuple[runs.Run, str]]) -> set[int]:
    return {run.instances[name].id for run, task_id in chosen for name in run.version.tasks[task_id].inputs}


def _why_failed(run: runs.Run) -> str:
    states = run.progress.states
    failed = [task_id for task_id, state in states.items() if state == "failed"]
    first = ", ".join(failed[:3]) + (", …" if len(failed) > 3 else "")
    return f"{len(failed)} of {len(states)} tasks failed: {first}"


def _facts(columns: entries.AttemptFacts) -> report_merge.Facts:
    fields = {name: value for name, value in vars(columns).items() if name != "runtime_s"}
    return report_merge.Facts(**{**fields, "evidence": tuple(columns.evidence)})


def _columns(facts: report_merge.Facts) -> entries.AttemptFacts:
    return entries.AttemptFacts(**{**vars(facts), "evidence": list(facts.evidence)}, runtime_s=facts.runtime_s)
