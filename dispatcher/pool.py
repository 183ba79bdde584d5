"""The address that people write into `CELERY_CUSTOM_WORKER_POOL`: `dispatcher.pool:KubernetesPool`."""

from dispatcher.worker.pool import KubernetesPool

__all__ = ["KubernetesPool"]
