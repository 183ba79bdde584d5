"""A Celery pool whose slots are Kubernetes pods, and the names that authors use to describe pods.

Importing this is cheap: no Kubernetes client, no YAML, no HTTP library.
"""

from dispatcher.kubernetes_types import Secret, Volume, VolumeMount

__all__ = ["Secret", "Volume", "VolumeMount"]
