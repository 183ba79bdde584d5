"""The pod of a single task, changed: more memory, a volume, a sidecar, another template.

`executor_config` counts only where the task's queue makes a pod; a Celery worker does not look at it. The override is a
mapping or a `V1Pod` of the Kubernetes client, laid over the template: the container `base` is the task's, other names
are containers beside it.
"""

from routing import DAG, task

on_pods = {"queue": "kubernetes"}


@task(
    **on_pods,
    executor_config={
        "pod_override": {
            "metadata": {"annotations": {"team": "reports"}},
            "spec": {
                "containers": [
                    {
                        "name": "base",
                        "env": [{"name": "SCRATCH", "value": "/scratch"}],
                        "resources": {"requests": {"memory": "64Mi"}},
                        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
                    }
                ],
                "volumes": [{"name": "scratch", "emptyDir": {}}],
            },
        }
    },
)
def with_volume():
    """Finds the volume where the variable says."""
    import os
    from pathlib import Path

    file = Path(os.environ["SCRATCH"], "note")
    file.write_text("kept as long as the pod")
    return file.read_text()


@task(
    **on_pods,
    executor_config={
        "pod_override": {
            "spec": {
                "containers": [
                    {"name": "base"},
                    {"name": "sidecar", "image": "busybox", "command": ["sh", "-c", "echo beside the task; sleep 1"]},
                ]
            }
        }
    },
)
def with_sidecar():
    """The container `base` decides how the task ended; the sidecar ends with the pod."""
    return "done"


@task(
    **on_pods,
    executor_config={
        "pod_template_file": "pods/small.yaml",  # beside this file
        "pod_override": {"metadata": {"labels": {"release": "stable"}}},
    },
)
def with_template():
    """The template replaces the queue's, then the override is laid over it."""
    import os

    return os.environ["FROM_TEMPLATE"]


with DAG("pod_override", description="The pods of single tasks, changed"):
    with_volume()
    with_sidecar()
    with_template()
