"""The ledger: all statements of the scheduler, in one transaction. Only `routing.scheduling` writes through this.

Many rows at once, each UPDATE guarded by the states that it may leave. A guard that does not hold raises Conflict, and
then nothing of the transaction is kept: the caller reads again.
"""

from routing.store import attempt_statements, lease, run_statements, task_statements, wait_statements


class Ledger(
    attempt_statements.AttemptStatements,
    wait_statements.WaitStatements,
    task_statements.TaskStatements,
    run_statements.RunStatements,
    lease.LeaseStatements,
):
    """One transaction of the scheduler."""
