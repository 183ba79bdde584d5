"""DAGs of `test_scheduler.py`. Bodies note what they did in the file `notes` beside the DAG folder."""

import os
import signal
import time
from pathlib import Path

from routing import DAG, BashOperator, EmptyOperator, PythonOperator, task
from routing.errors import TaskFailed

NOTES = Path(__file__).parent.parent / "notes"


def note(word):
    """Note a word; gives how often it was noted."""
    with NOTES.open("a") as file:
        file.write(f"{word}\n")
    return NOTES.read_text().split().count(word)


with DAG("mixed"):

    @task
    def one():
        return {"n": 1}

    @task
    def two(given):
        return given["n"] + 1

    first = one()
    EmptyOperator(task_id="begin") >> first
    [two(first), BashOperator(task_id="words", bash_command="echo hello")] >> EmptyOperator(task_id="end")


with DAG("faults"):

    @task
    def raises():
        raise ValueError("no such thing")

    @task
    def exits():
        os._exit(3)

    @task
    def killed():
        os.kill(os.getpid(), signal.SIGKILL)

    @task
    def not_json():
        return object()

    @task
    def too_large():
        return "x" * 5_000_000

    @task(task_id="größe.漢字")
    def named():
        return "ok"

    @task
    def exit_code():
        raise SystemExit(4)

    @task(trigger_rule="all_done")
    def last():
        return "the rest goes on"

    [raises(), exits(), killed(), not_json(), too_large(), named(), exit_code()] >> last()


with DAG("retries"):

    @task(retries=2, retry_delay=0)
    def third_time():
        if note("try") < 3:
            raise RuntimeError("not yet")
        return "done"

    third_time()


with DAG("infrastructure"):

    @task
    def unlucky():
        if note("unlucky") < 3:
            raise TaskFailed("the machine went away", {"cause": "infrastructure", "reason": "NodeLost"})
        return "done"

    unlucky()


with DAG("rules"):

    @task
    def bad():
        raise ValueError("bad")

    @task
    def good():
        return 1

    @task(trigger_rule="one_failed")
    def repair():
        return "repaired"

    @task
    def never():
        return 0

    @task(trigger_rule="none_failed")
    def neither():
        return 0

    @task(trigger_rule="all_done")
    def report():
        return "reported"

    worst, best, end = bad(), good(), report()
    [worst, best] >> repair()
    worst >> never() >> end
    worst >> neither() >> end
    best >> end


with DAG("skips"):

    @task(retries=2)
    def nothing_to_do():
        raise TaskFailed("nothing to do", {"reason": "Skipped", "exit_code": 99})

    @task
    def follows():
        return 1

    @task(trigger_rule="none_failed")
    def tidies():
        return 2

    [nothing_to_do()] >> follows() >> tidies()


with DAG("slow"):

    @task
    def sleeps():
        note("sleeps")
        time.sleep(60)
        note("slept")

    @task
    def after():
        note("after")

    sleeps() >> after()


with DAG("lonely"):

    @task(queue="nobody")
    def waits():
        return 1

    waits()


with DAG("chain"):
    before = None
    for number in range(10):
        now = PythonOperator(task_id=f"c{number}", python_callable=lambda: None)
        if before is not None:
            before >> now
        before = now
