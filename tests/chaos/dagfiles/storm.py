"""DAGs of the chaos run. Each body appends its start and its end, with its attempt's id, to the file `trace`.

The file stands beside the DAG folder; a line is one write with O_APPEND, so lines of many processes do not mix.
"""

import os
import time
from pathlib import Path

from routing import DAG, KubernetesPodOperator, PythonOperator, get_current_context, task

TRACE = Path(__file__).parent.parent / "trace"
SIDES = ("default", "kubernetes")
RETRIES = {"retries": 50, "retry_delay": 0.3}
"""A sound body that is killed by a signal is charged to its author, since nobody knows who sent it."""


def note(word):
    """Append one line: start or end, the attempt's id, the process, the time."""
    line = f"{word} {get_current_context()['attempt_id']} {os.getpid()} {time.time():.6f}\n"
    file = os.open(TRACE, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def step(given=0, *, naps=0.2):
    """Adds one to what it was given."""
    note("start")
    time.sleep(naps)
    note("end")
    return given + 1


with DAG("fan"):

    @task(**RETRIES)
    def join(*values):
        note("start")
        assert sorted(values) == [2] * 6, values
        note("end")

    first = PythonOperator(task_id="first", python_callable=step, **RETRIES)
    join(
        *(
            PythonOperator(
                task_id=f"part{number}",
                python_callable=step,
                op_args=[first.output],
                queue=SIDES[number % 2],
                **RETRIES,
            ).output
            for number in range(6)
        )
    )


with DAG("chain"):
    before = 0
    for number in range(6):
        before = PythonOperator(
            task_id=f"c{number}", python_callable=step, op_args=[before], queue=SIDES[number % 2], **RETRIES
        ).output

    @task(queue="kubernetes", **RETRIES)
    def last(value):
        note("start")
        assert value == 6, value
        note("end")

    last(before)


with DAG("again"):

    @task(**RETRIES)
    def third_time():
        note("start")
        if get_current_context()["try_number"] < 3:
            raise RuntimeError("not yet")
        note("end")

    @task(queue="kubernetes", **RETRIES)
    def second_time():
        note("start")
        if get_current_context()["try_number"] < 2:
            raise RuntimeError("not yet")
        note("end")

    third_time() >> second_time()


with DAG("slow"):
    for side in SIDES:
        PythonOperator(task_id=f"naps_{side}", python_callable=step, op_kwargs={"naps": 5}, queue=side, **RETRIES)


with DAG("pods"):
    ATTEMPT = {"fieldRef": {"fieldPath": "metadata.annotations['podyard.dev/attempt-id']"}}
    SCRIPT = f'note() {{ echo "$1 $ATTEMPT $$ $(date +%s.%N)" >> {TRACE}; }}; note start; sleep 1; note end'
    KubernetesPodOperator(
        task_id="pod",
        image="busybox:1.36",
        cmds=["sh", "-c"],
        arguments=[SCRIPT],
        env_vars=[{"name": "ATTEMPT", "valueFrom": ATTEMPT}],
        **RETRIES,
    ) >> PythonOperator(task_id="after", python_callable=step, **RETRIES)


with DAG("swift"):
    PythonOperator(task_id="go", python_callable=step, **RETRIES)
