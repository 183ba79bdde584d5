"""The lease: which process has a role now, until when. A holder that does not renew it loses it."""

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from routing.store import store_errors, tables, transaction


class LeaseStatements(transaction.Transaction):
    """Leases by the name of their role."""

    def hold(self, name: str, holder: str, *, lease_s: float, now: datetime) -> None:
        """Renew the lease as part of this transaction. Raises LeaseLost where somebody else has it."""
        query = sa.update(tables.LEASE).where(tables.LEASE.c.name == name, tables.LEASE.c.holder == holder)
        # The error rolls back all of the transaction, so whoever lost the lease writes nothing more.
        if self._connection.execute(query.values(**self._term(lease_s, now))).rowcount != 1:
            raise store_errors.LeaseLost(f"another process has taken over the role {name!r}")

    def take(self, name: str, holder: str, *, lease_s: float, now: datetime) -> str | None:
        """Take the lease if it is free or over. Returns None, or who has it."""
        term = self._term(lease_s, now)
        # First the row, then one guarded UPDATE: of two that take it at once the
        # second waits for the row and finds it taken.
        insert = postgresql.insert if self._is_postgres() else sqlite.insert
        self._connection.execute(
            insert(tables.LEASE)
            .values(name=name, holder=holder, **term)
            .on_conflict_do_nothing(index_elements=["name"])
        )
        over = tables.LEASE.c.expires_at <= term["renewed_at"]
        query = sa.update(tables.LEASE).where(
            tables.LEASE.c.name == name, sa.or_(tables.LEASE.c.holder == holder, over)
        )
        if self._connection.execute(query.values(holder=holder, **term)).rowcount == 1:
            return None
        return str(self._connection.scalar(sa.select(tables.LEASE.c.holder).where(tables.LEASE.c.name == name)))

    def holder(self, name: str, *, now: datetime) -> str | None:
        """Who has the lease; None where nobody has, or who had it did not renew it in time."""
        at = sa.func.clock_timestamp() if self._is_postgres() else now
        query = sa.select(tables.LEASE.c.holder).where(tables.LEASE.c.name == name, tables.LEASE.c.expires_at > at)
        found = self._connection.scalar(query)
        return None if found is None else str(found)

    def end_lease(self, name: str, holder: str) -> None:
        """Give the lease back, so that another process need not wait for its end."""
        self._connection.execute(
            sa.delete(tables.LEASE).where(tables.LEASE.c.name == name, tables.LEASE.c.holder == holder)
        )

    def _term(self, lease_s: float, now: datetime) -> dict[str, Any]:
        """From when to when a lease holds: on a server by the server's clock, since hosts' clocks differ."""
        if not self._is_postgres():
            return {"renewed_at": now, "expires_at": now + timedelta(seconds=lease_s)}
        # Not now(), which is when the transaction began: one that waited for a
        # lock would renew its lease into the past.
        clock = sa.func.clock_timestamp()
        return {"renewed_at": clock, "expires_at": clock + timedelta(seconds=lease_s)}

    def _is_postgres(self) -> bool:
        return self._connection.dialect.name == "postgresql"
