"""DAGs of `test_causes.py`: pods that end badly once, by faults of the local cluster, and well when tried again."""

from pathlib import Path

from routing import DAG, KubernetesPodOperator

MARKS = Path(__file__).parent.parent / "marks"
ONCE = f"mkdir -p {MARKS}; test -e {MARKS}/$NAME && exit 0; touch {MARKS}/$NAME; exec sleep 60"


def pod(task_id, *, script=ONCE, queue="grows", **arguments):
    """A pod that waits to be hit by a fault when it runs first; its next attempt ends well at once."""
    arguments.setdefault("image", "busybox:1.37")
    return KubernetesPodOperator(
        task_id=task_id, queue=queue, cmds=["sh", "-c", script], env_vars={"NAME": task_id}, **arguments
    )


def memory(request, limit):
    return {"requests": {"memory": request}, "limits": {"memory": limit}}


with DAG("hungry"):
    pod("learns", container_resources=memory("128Mi", "512Mi"))

with DAG("greedy"):
    pod("never-full", script="exec sleep 60", container_resources=memory("128Mi", "512Mi"))

with DAG("modest"):
    pod("alone", script="exec sleep 60", queue="plain", container_resources=memory("128Mi", "512Mi"))

with DAG("unlucky"):
    for name in ("evicted", "shutdown", "preempted", "deleted", "refused"):
        pod(name)
    pod("limited", script="true", image="registry.example/limited:1")

with DAG("homeless"):
    pod("lost")

with DAG("stuck"):
    far = [{"name": "far", "csi": {"driver": "nowhere.example.com"}}]
    pod("never-starts", volumes=far, volume_mounts=[{"name": "far", "mountPath": "/far"}], startup_timeout_seconds=1)

with DAG("cursed"):
    pod("thrown", script="exec sleep 60", queue="plain")

with DAG("late"):
    pod("sleeper", script="exec sleep 60", queue="plain", execution_timeout=2)

with DAG("nowhere"):
    for name in ("cpu", "memory", "selector", "taint", "volume"):
        pod(name, script="true")
