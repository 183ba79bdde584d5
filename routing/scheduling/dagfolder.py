"""The DAG folder: a thread of the scheduler that keeps the record's DAGs as the files are."""

import logging
import threading
from datetime import UTC, datetime
from pathlib import Path

from routing.authoring import loading
from routing.store import store_errors
from routing.store.store import Store

log = logging.getLogger(__name__)

RETRY_S = 1.0


class DagFolder(threading.Thread):
    """Loads what is new every `refresh_s` and saves it if anything changed."""

    def __init__(
        self, folder: Path, store: Store, *, timeout_s: float, refresh_s: float, stop: threading.Event
    ) -> None:
        super().__init__(name="dag-folder", daemon=True)
        self._loader = loading.FolderLoader(folder, timeout_s)
        self._store = store
        self._refresh_s = refresh_s
        self._stop_event = stop
        self._saved: loading.Loaded | None = None

    def run(self) -> None:
        """The loop."""
        while not self._stop_event.is_set():
            wait_s = self._refresh_s
            try:
                self._refresh()
            except store_errors.RecordError as error:
                log.debug("DAGs not saved: %s", error)  # the scheduler's loop reports what is away
                wait_s = RETRY_S
            # The thread lives as long as the scheduler: what one look could not load, the next one may.
            except Exception:
                log.exception("loading the DAG folder failed")
            self._stop_event.wait(wait_s)

    def close(self) -> None:
        """End children that still load files."""
        self._loader.close()

    def _refresh(self) -> None:
        loaded = self._loader.refresh()
        # After a stop the children have been killed (`close`), and what they left would look like broken files.
        if loaded == self._saved or self._stop_event.is_set():
            return
        self._store.save_dags(loaded, at=datetime.now(UTC))
        self._saved = loaded
        log.info("DAG folder loaded: dags=%d errors=%d", len(loaded.dags), len(loaded.errors))
