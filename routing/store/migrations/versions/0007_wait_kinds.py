"""The record says what kind of wait an attempt is in, beside the words for people, from which it was read before.

A revision keeps the types that it was written with; it does not follow the models.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007_wait_kinds"
down_revision = "0006_diagnoses"
branch_labels = None
depends_on = None

_ATTEMPT = sa.table(
    "attempt", sa.column("state", sa.String), sa.column("waiting_reason", sa.Text), sa.column("wait_kind", sa.String)
)


def upgrade() -> None:
    """Add the column and fill it for attempts that wait, by the words of the version before.

    Attempts whose pod waits get theirs when the scheduler looks at the pod again, within seconds.
    """
    op.add_column("attempt", sa.Column("wait_kind", sa.String(16), nullable=True))
    reason = _ATTEMPT.c.waiting_reason
    kind = sa.case(
        (reason.like("its message is not sent yet%"), "sending"),
        (reason.like("no % consumes the queue %"), "consumer"),
        (reason.like("waiting for %"), "queued"),
    )
    op.execute(sa.update(_ATTEMPT).where(_ATTEMPT.c.state.in_(("recorded", "sent"))).values(wait_kind=kind))
