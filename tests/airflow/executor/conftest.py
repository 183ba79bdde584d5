"""Airflow as these tests need it: no server, a broker in memory, results in files. Before anything imports Airflow."""

import os
import tempfile

os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="podyard-airflow-")
os.environ["AIRFLOW__CELERY__BROKER_URL"] = "memory://"
os.environ["AIRFLOW__CELERY__RESULT_BACKEND"] = f"file://{tempfile.mkdtemp(prefix='podyard-results-')}"
os.environ["AIRFLOW__CELERY__SYNC_PARALLELISM"] = "1"
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__API_AUTH__JWT_SECRET"] = (
    "a-secret-of-the-test-that-is-long-enough-for-sha512-signatures-0123456789"
)
os.environ["PODYARD_CONFIG"] = ""
