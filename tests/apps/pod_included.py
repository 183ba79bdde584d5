"""A module that only `-I` names."""

from tests.apps.pod_app import app


@app.task
def included() -> str:
    return "included"
