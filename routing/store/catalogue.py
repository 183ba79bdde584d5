"""The catalogue: the DAGs that the DAG folder holds, with their versions, and what is wrong in its files."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import sqlalchemy as sa

from routing.store import columns, record, rows, tables


class Dag(Protocol):
    """What is stored of a DAG: `routing.authoring.spec.DagSpec` is one."""

    @property
    def dag_id(self) -> str: ...
    @property
    def file(self) -> str: ...
    @property
    def description(self) -> str | None: ...
    def to_json(self) -> Mapping[str, Any]: ...


class LoadError(Protocol):
    """Why a file cannot be used: `routing.authoring.loading.LoadError` is one."""

    @property
    def file(self) -> str: ...
    @property
    def line(self) -> int | None: ...
    @property
    def message(self) -> str: ...


class Loaded(Protocol):
    """What a DAG folder holds: `routing.authoring.loading.Loaded` is one."""

    @property
    def dags(self) -> Sequence[Dag]: ...
    @property
    def errors(self) -> Sequence[LoadError]: ...


class Catalogue(record.RecordPart):
    """DAGs by name."""

    def save_dags(self, loaded: Loaded, *, at: datetime) -> None:
        """Store what a DAG folder holds: DAGs, new versions, errors. DAGs that are gone become inactive.

        An error of the folder itself (its `file` is empty) says nothing of the DAGs, so they stay as they are.
        """
        with self.db.write() as connection:
            for dag in loaded.dags:
                _save_dag(connection, dag, at=at)
            if all(error.file for error in loaded.errors):
                # Not deleted: queued runs are found by way of this row, and `dags list` shows what has gone.
                gone = tables.DAG.c.dag_id.not_in([dag.dag_id for dag in loaded.dags])
                connection.execute(sa.update(tables.DAG).where(tables.DAG.c.is_active, gone).values(is_active=False))
            connection.execute(sa.delete(tables.DAG_ERROR))
            found = [{"file": e.file, "line": e.line, "message": e.message, "seen_at": at} for e in loaded.errors]
            if found:
                connection.execute(sa.insert(tables.DAG_ERROR), found)

    def dags(self) -> list[rows.DagRow]:
        """All DAGs by name, the ones that have gone included (`is_active` is False)."""
        with self.db.read() as connection:
            return [_dag_row(row) for row in connection.execute(_DAGS.order_by(tables.DAG.c.dag_id)).mappings()]

    def dag(self, dag_id: str) -> rows.DagRow | None:
        """One DAG, or None."""
        with self.db.read() as connection:
            return newest(connection, dag_id)

    def dag_errors(self) -> list[rows.DagErrorRow]:
        """What is wrong in the DAG folder, by file and line."""
        names = (
            tables.DAG_ERROR.c.file,
            tables.DAG_ERROR.c.line,
            tables.DAG_ERROR.c.message,
            tables.DAG_ERROR.c.seen_at,
        )
        with self.db.read() as connection:
            query = sa.select(*names).order_by(tables.DAG_ERROR.c.file, tables.DAG_ERROR.c.id)
            return [rows.DagErrorRow(**row) for row in connection.execute(query).mappings()]

    def pause(self, dag_id: str, paused: bool) -> bool:
        """Pause or go on: queued runs of a paused DAG do not start. Returns whether there is such a DAG."""
        with self.db.write() as connection:
            query = sa.update(tables.DAG).where(tables.DAG.c.dag_id == dag_id).values(is_paused=paused)
            return connection.execute(query).rowcount == 1


_DAGS = sa.select(
    *(
        tables.DAG.c.dag_id,
        tables.DAG.c.file,
        tables.DAG.c.description,
        tables.DAG.c.is_paused,
        tables.DAG.c.is_active,
        tables.DAG.c.loaded_at,
    ),
    tables.DAG.c.version_id.label("version"),
    tables.VERSION.c.structure,
).join(tables.VERSION, tables.VERSION.c.id == tables.DAG.c.version_id, isouter=True)


def newest(connection: sa.Connection, dag_id: str) -> rows.DagRow | None:
    """A DAG with its newest version, or None."""
    row = connection.execute(_DAGS.where(tables.DAG.c.dag_id == dag_id)).mappings().first()
    return None if row is None else _dag_row(row)


def why_unknown(connection: sa.Connection, dag_id: str, *, is_gone: bool) -> str:
    """Why no run of this DAG can be made, and what is there instead."""
    if is_gone:
        return f"DAG {dag_id!r} is not in the DAG folder any more: see `podyard dags list` for its errors"
    known = list(
        connection.scalars(
            sa.select(tables.DAG.c.dag_id).where(tables.DAG.c.is_active).order_by(tables.DAG.c.dag_id).limit(10)
        )
    )
    return f"there is no DAG {dag_id!r}; known: {', '.join(known) or 'none yet (is the scheduler running?)'}"


def _save_dag(connection: sa.Connection, dag: Dag, *, at: datetime) -> None:
    structure = dict(dag.to_json())
    # A file that was only touched, or loaded by another scheduler, makes no version.
    fingerprint = hashlib.sha256(columns.dumps(structure).encode()).hexdigest()
    mine = sa.and_(tables.VERSION.c.dag_id == dag.dag_id, tables.VERSION.c.fingerprint == fingerprint)
    # The version before the DAG, whose row refers to it.
    version = connection.scalar(sa.select(tables.VERSION.c.id).where(mine))
    if version is None:
        values = {"dag_id": dag.dag_id, "fingerprint": fingerprint, "structure": structure, "created_at": at}
        version = record.inserted(connection, tables.VERSION, values)
    row = {"dag_id": dag.dag_id, "file": dag.file, "description": dag.description, "version_id": version}
    record.put(connection, tables.DAG, tables.DAG.c.dag_id == dag.dag_id, {**row, "is_active": True, "loaded_at": at})


def _dag_row(row: sa.RowMapping) -> rows.DagRow:
    return rows.DagRow(**{**row, "structure": row["structure"] or {}})
