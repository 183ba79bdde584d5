"""Every wait has its beginning, its deadline and what happens then: columns of pods and of attempts.

A revision keeps the types that it was written with; it does not follow the models.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005_waits"
down_revision = "0002_pods_by_phase"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the columns; rows from before have none of it."""
    op.add_column("pod", sa.Column("waiting_since", _TIME, nullable=True))
    for table in ("pod", "attempt"):
        op.add_column(table, sa.Column("deadline_at", _TIME, nullable=True))
        op.add_column(table, sa.Column("at_deadline", sa.String(8), nullable=True))
