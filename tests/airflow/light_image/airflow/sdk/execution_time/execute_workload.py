"""Stands in the place of Airflow's program of this name, in pods of tests with hundreds of them: the same arguments and
the same calls of the execution API, but no body of a task. A real one costs seconds of CPU, this one a tenth of one.

Each body that Airflow lets begin leaves a line in the file that LIGHT_RECORD names.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from typing import Any


def main(path: str) -> int:
    with open(path) as file:  # pathlib is a tenth of what this program costs
        workload = json.load(file)
    instance, token = workload["ti"], workload["token"]
    url = f"{os.environ['AIRFLOW__CORE__EXECUTION_API_SERVER_URL'].rstrip('/')}/task-instances/{instance['id']}"
    began = {"state": "running", "hostname": "light", "unixname": "light", "pid": os.getpid(), "start_date": now()}
    token = call(f"{url}/run", token, began) or token
    line = json.dumps([instance["run_id"], instance["map_index"], instance["try_number"]])
    with open(os.environ["LIGHT_RECORD"], "a") as record:
        record.write(f"{line}\n")
    time.sleep(float(os.environ.get("LIGHT_SECONDS", "0")))
    ended = {"state": "success", "end_date": now(), "task_outlets": [], "outlet_events": []}
    call(f"{url}/state", token, ended)
    print(f"{instance['map_index']} has ended", flush=True)
    return 0


def now() -> str:
    return datetime.now(UTC).isoformat()


def call(url: str, token: str, body: dict[str, Any]) -> str | None:
    """One call of the execution API, again where the server is away; gives the next token, where there is one."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    for wait_s in (0.5, 1, 2, 4, 8, None):
        request = urllib.request.Request(url, data=json.dumps(body).encode(), headers=headers, method="PATCH")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                next_token: str | None = answer.headers.get("Refreshed-API-Token")
                return next_token
        except urllib.error.HTTPError as error:
            print(f"{url}: {error.code} {error.read()[:2000]!r}", flush=True)
            if error.code < 500 or wait_s is None:
                raise
        except OSError as error:
            print(f"{url}: {error!r}", flush=True)
            if wait_s is None:
                raise
        time.sleep(wait_s)
    raise AssertionError("not reached")


if __name__ == "__main__":
    sys.exit(main(sys.argv[sys.argv.index("--json-path") + 1]))
