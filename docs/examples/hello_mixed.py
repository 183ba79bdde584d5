"""The smallest mixed DAG: one task in a Celery worker, one in a pod, one command of the shell, in this order."""

from routing import DAG, BashOperator, get_current_context, task


@task
def choose_name(params):
    """Runs in a Celery worker. `params` are the defaults below and what the run was started with (`--conf`)."""
    return params["name"]


@task(queue="kubernetes")
def greet(name):
    """Runs in a pod. Its argument is the result of the task before it."""
    run_id = get_current_context()["run_id"]
    print(f"this line is in the pod's log; the run is {run_id}")
    return f"Hello {name}"


with DAG("hello_mixed", description="A Celery worker, then a pod, then bash", params={"name": "world"}):
    greeting = greet(choose_name())
    BashOperator(task_id="shout", bash_command='echo "$GREETING" | tr a-z A-Z', env={"GREETING": greeting})
