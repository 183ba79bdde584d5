"""Attempts keep their diagnosis, and task instances what their earlier attempts taught.

A revision keeps the types that it was written with; it does not follow the models.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006_diagnoses"
down_revision = "0005_waits"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; older attempts have none."""
    op.add_column("attempt", sa.Column("diagnosis", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("task_instance", sa.Column("lessons", sa.JSON(none_as_null=True), nullable=True))
