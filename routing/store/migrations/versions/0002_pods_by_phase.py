"""Pods that have not ended are found by an index: a dispatcher looks for those that vanished while nobody watched.

A revision keeps the types that it was written with; it does not follow the models.
"""

from alembic import op

revision = "0002_pods_by_phase"
down_revision = "0001_first_tables"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the index."""
    op.create_index("ix_pod_deployment_phase", "pod", ["deployment", "phase"])
