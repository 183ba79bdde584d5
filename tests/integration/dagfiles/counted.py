"""Tasks that note their numbers in the file `notes` beside the DAG folder, in pairs: each must run once."""

import time
from pathlib import Path

from routing import DAG, PythonOperator

PAIRS = 100
NOTES = Path(__file__).parent.parent / "notes"


def step(number):
    with NOTES.open("a") as file:
        file.write(f"{number}\n")
    time.sleep(0.02)
    return number


with DAG("counted"):
    for number in range(PAIRS):
        first = PythonOperator(task_id=f"a{number}", python_callable=step, op_args=[number])
        first >> PythonOperator(task_id=f"b{number}", python_callable=step, op_args=[1000 + number])
