"""A pod's row says whether its end is reported: one that ended in sight, and vanished before that, is not forgotten.

Until then a row with a final phase counted as done. Rows that have one already are taken as reported. The table of
watch checkpoints, which nobody writes any more, goes. A revision keeps the types that it was written with; it does not
follow the models.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008_reported_pods"
down_revision = "0007_wait_kinds"
branch_labels = None
depends_on = None

_POD = sa.table(
    "pod",
    sa.column("phase", sa.String),
    sa.column("updated_at", sa.DateTime(timezone=True)),
    sa.column("reported_at", sa.DateTime(timezone=True)),
)


def upgrade() -> None:
    """Add the column with its index, fill it, and drop what is not used."""
    op.add_column("pod", sa.Column("reported_at", sa.DateTime(timezone=True), nullable=True))
    is_open = _POD.c.phase.in_(("Waiting", "Pending", "Running", "Unknown"))
    op.execute(sa.update(_POD).where(~is_open).values(reported_at=_POD.c.updated_at))
    op.drop_index("ix_pod_deployment_phase", "pod")
    op.create_index("ix_pod_reported", "pod", ["deployment", "reported_at", "updated_at"])
    op.drop_table("watch_checkpoint")
