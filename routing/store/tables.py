"""The tables of the record as SQL Core knows them: what statements are written with. Made from `models` alone."""

from typing import cast

import sqlalchemy as sa

from dispatcher.attempts import status_store
from routing.store import models

DAG = cast("sa.Table", models.Dag.__table__)
DAG_ERROR = cast("sa.Table", models.DagError.__table__)
VERSION = cast("sa.Table", models.DagVersion.__table__)
RUN = cast("sa.Table", models.DagRun.__table__)
TASK = cast("sa.Table", models.TaskInstance.__table__)
ATTEMPT = cast("sa.Table", models.Attempt.__table__)
XCOM = cast("sa.Table", models.XCom.__table__)
LEASE = cast("sa.Table", models.Lease.__table__)
CONSUMER = cast("sa.Table", models.QueueConsumer.__table__)
PROCESS = cast("sa.Table", models.Process.__table__)
POD = status_store.POD
"""The dispatchers': its rows are theirs, here they are only read."""
