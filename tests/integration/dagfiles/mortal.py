"""A task that sleeps the first time and ends the second time. It notes its process in `notes` beside the DAG folder."""

import os
import time
from pathlib import Path

from routing import DAG, task

NOTES = Path(__file__).parent.parent / "notes"

with DAG("mortal"):

    @task
    def works():
        with NOTES.open("a") as file:
            file.write(f"{os.getpid()}\n")
        if len(NOTES.read_text().split()) == 1:
            time.sleep(600)
        return "done"

    works()
