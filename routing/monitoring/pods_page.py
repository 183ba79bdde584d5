"""A page «Pods» in Flower: what the pods' table knows, beside Flower's workers and tasks.

Flower shows what Celery's events say; where a pod waits, and why, stands in the record and outlives Flower. `install`
adds `/pods`, `/api/pods` and a tab to Flower's own tables of addresses and templates, without changing its code; it
leans on their layout, so Flower's minor version is pinned. The page is behind Flower's own login.
"""

import asyncio
import html
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flower import urls
from flower.api import BaseApiHandler
from flower.views import BaseHandler
from tornado.template import Loader, Template
from tornado.web import HTTPError, authenticated, url

from dispatcher.attempts.status_store import PodRow, PodStore
from dispatcher.errors import StoreUnavailable
from dispatcher.status import diagnosis

ROWS = 200
NO_RECORD = (
    "the dispatcher of this application keeps no record of pods: give both database_url in app.conf.podyard, or"
    " PODYARD_DATABASE__URL, and make the tables with `podyard db upgrade`"
)
_TAB = """<li class="nav-item"><a class="nav-link{% if active_tab == 'pods' %} active{% end %}"
 href="{{ reverse_url('pods') }}">Pods</a></li>
"""
_LAST_TAB = "</ul>"
"""The first list of Flower's navbar holds its tabs."""
_PAGE = """{% extends "base.html" %}
{% block title %}Pods · Flower{% end %}
{% block navbar %}{% module Template("navbar.html", active_tab="pods") %}{% end %}
{% block container %}
<div class="page-section broker-page">
  <header class="page-header mb-2"><div><p class="page-eyebrow">Pods</p>
    <p class="page-description mt-3">{{ note }}</p></div></header>
  <section class="broker-table-card" aria-label="Pods"><figure class="table-responsive mb-0">
    <table class="broker-table table table-hover align-middle mb-0" id="pods-table">
      <thead><tr>{% for head in heads %}<th>{{ head }}</th>{% end %}</tr></thead>
      <tbody>{% for cells, task_id in rows %}<tr>{% for cell in cells %}<td>{{ cell }}</td>{% end %}
        <td><a href="{{ reverse_url('task', task_id) }}">task</a></td></tr>{% end %}</tbody>
    </table></figure></section>
</div>
{% end %}
"""
_HEADS = ("Pod", "Namespace", "Queue", "Task", "Phase", "Reason", "Node", "Created", "Seconds", "Exit", "")


class _Templates(Loader):
    """Flower's templates, with a page and a tab of ours."""

    def _create_template(self, name: str) -> Any:
        if name == "pods.html":
            return Template(_PAGE, name=name, loader=self)
        if name == "navbar.html":
            text = (Path(self.root) / name).read_text(encoding="utf-8")
            return Template(text.replace(_LAST_TAB, _TAB + _LAST_TAB, 1), name=name, loader=self)
        return super()._create_template(name)


def install(database_url: str) -> None:
    """Adds the page to Flower, in this process, before it starts. An empty URL: there is no record of pods."""

    def read() -> list[PodRow]:
        if not database_url:
            raise StoreUnavailable(NO_RECORD)
        file = Path(database_url.removeprefix("sqlite:///"))
        if database_url.startswith("sqlite:///") and not file.exists():  # it would be made by looking at it
            raise StoreUnavailable(f"there is no database at {file}: make it with `podyard db upgrade`")
        store = PodStore(database_url)
        try:
            return store.pods(limit=ROWS)
        finally:
            store.close()

    urls.settings["template_loader"] = _Templates(urls.settings["template_path"])
    # Before the last one, which is Flower's page for addresses that do not exist.
    urls.handlers[-1:-1] = [
        url(r"/pods", _PodsPage, {"read": read}, name="pods"),
        (r"/api/pods", _PodsApi, {"read": read}),
    ]


class _PodsPage(BaseHandler):
    def initialize(self, read: Callable[[], list[PodRow]]) -> None:
        self._read = read

    @authenticated
    async def get(self) -> None:
        try:
            # Tornado has one thread for all pages, and events of workers come in on it, too.
            rows, note = await asyncio.to_thread(self._read), f"The newest {ROWS} pods of this record."
        except StoreUnavailable as error:
            rows, note = [], f"The record cannot be read: {error}"
        self.render("pods.html", heads=_HEADS, note=note, rows=[(_cells(row), row.attempt_id) for row in rows])


class _PodsApi(BaseApiHandler):
    def initialize(self, read: Callable[[], list[PodRow]]) -> None:
        self._read = read

    @authenticated
    async def get(self) -> None:
        try:
            rows = await asyncio.to_thread(self._read)
        except StoreUnavailable as error:
            raise HTTPError(503, html.escape(str(error))) from error
        self.write({"pods": [_plain(row) for row in rows]})


def _cells(row: PodRow) -> Sequence[str]:
    ended = row.ended_at or row.updated_at
    seconds = f"{(ended - row.started_at).total_seconds():.0f}" if row.started_at else ""
    created = row.created_at.strftime("%Y-%m-%d %H:%M:%S") if row.created_at else ""
    found = _diagnosis(row)
    reason = f"{row.reason}: {found.explanation}" if found else row.reason
    names = (row.name, row.namespace, row.queue, row.task, row.phase, reason, row.node)
    return (*(name or "" for name in names), created, seconds, "" if row.exit_code is None else str(row.exit_code))


def _plain(row: PodRow) -> dict[str, Any]:
    plain = {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in asdict(row).items()}
    found = _diagnosis(row)
    return plain | ({"explanation": found.explanation, "what_to_do": found.what_to_do} if found else {})


def _diagnosis(row: PodRow) -> diagnosis.Diagnosis | None:
    """Why it waits or failed; None where there is nothing to explain."""
    if not row.reason or row.phase in ("Running", "Succeeded"):
        return None
    message, code = row.message or "", row.exit_code
    return diagnosis.diagnose(diagnosis.Symptoms(reason=row.reason, exit_code=code, message=message, node=row.node))
