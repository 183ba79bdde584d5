"""The address that people write into `CELERY_CUSTOM_WORKER_POOL`: `dispatcher.pool:KubernetesPool`.

Only a Celery worker that is about to start imports it: one whose packages are not all installed ends with one line.
"""

from dispatcher import errors, extras

try:
    extras.require("dispatcher", for_what="the pool dispatcher.pool:KubernetesPool")
except errors.MissingExtra as error:
    # Celery would print a traceback of its loader for an ImportError.
    raise SystemExit(f"podyard: {error}") from None

from dispatcher.worker.pool import KubernetesPool

__all__ = ["KubernetesPool"]
