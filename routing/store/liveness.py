"""Liveness: which workers consume which queues and which processes run, by when they were last seen."""

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from routing.store import record, rows, tables


class Liveness(record.RecordPart):
    """Consumers and processes."""

    def consumers(self) -> list[rows.ConsumerRow]:
        """Which worker consumes which queue, as far as was seen lately."""
        with self.db.read() as connection:
            return consumers(connection)

    def processes(self) -> list[rows.ProcessRow]:
        """The parts of this installation that reported."""
        with self.db.read() as connection:
            query = sa.select(*tables.PROCESS.c).order_by(tables.PROCESS.c.kind, tables.PROCESS.c.name)
            return [rows.ProcessRow(**row) for row in connection.execute(query).mappings()]

    def save_presence(
        self, *, consumers: Sequence[rows.ConsumerRow], processes: Sequence[rows.ProcessRow], since: datetime
    ) -> None:
        """Write who is there: all consumers, and the processes that were seen; those not seen since `since` go."""
        with self.db.write() as connection:
            # The table is the last look and no history: who was not seen consumes nothing.
            connection.execute(sa.delete(tables.CONSUMER))
            connection.execute(sa.delete(tables.PROCESS).where(tables.PROCESS.c.seen_at < since))
            for consumer in consumers:
                mine = sa.and_(tables.CONSUMER.c.queue == consumer.queue, tables.CONSUMER.c.worker == consumer.worker)
                record.put(connection, tables.CONSUMER, mine, vars(consumer))
            for process in processes:
                record.put(connection, tables.PROCESS, tables.PROCESS.c.name == process.name, vars(process))


def consumers(connection: sa.Connection) -> list[rows.ConsumerRow]:
    """Every consumer, by queue and worker."""
    query = sa.select(*tables.CONSUMER.c).order_by(tables.CONSUMER.c.queue, tables.CONSUMER.c.worker)
    return [rows.ConsumerRow(**row) for row in connection.execute(query).mappings()]
