"""What happens when tasks fail: retries, trigger rules, exit codes. The run ends as failed, and is meant to.

flaky  fails once, is tried again after a second, succeeds
exits  ends with exit code 3, has no retries, fails
join   needs both to succeed           -> upstream_failed, never runs
alarm  needs one that failed           -> runs
tidy   runs however the two ended      -> runs, in a pod
"""

from routing import DAG, BashOperator, EmptyOperator, TriggerRule, task


@task(retries=2, retry_delay=1)
def flaky(try_number):
    """A parameter named like a key of the context (`try_number`, `ds`, `run_id` …) is filled in."""
    if try_number == 1:
        raise ConnectionError("the first try never works")
    return try_number


@task(trigger_rule=TriggerRule.ONE_FAILED)
def alarm():
    """Here one would notify somebody."""
    print("something failed")


@task(trigger_rule="all_done", queue="kubernetes")
def tidy(tries):
    """A result that is missing would be None."""
    print(f"flaky needed {tries} tries")


with DAG("failing", description="Retries and trigger rules, with tasks that fail on purpose"):
    tries = flaky()
    exits = BashOperator(task_id="exits", bash_command="echo 'about to fail' >&2; exit 3")
    [tries, exits] >> EmptyOperator(task_id="join")
    [tries, exits] >> alarm()
    exits >> tidy(tries)
