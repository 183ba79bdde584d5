"""Two pods as the first pages on Airflow's pod operator have them, as an author brings them along."""

from dispatcher import Secret, Volume, VolumeMount
from routing import DAG, KubernetesPodOperator

secret_file = Secret("volume", "/etc/sql_conn", "airflow-secrets", "sql_alchemy_conn")
secret_env = Secret("env", "SQL_CONN", "airflow-secrets", "sql_alchemy_conn")
secret_all_keys = Secret("env", None, "airflow-secrets-2")
volume_mount = VolumeMount("test-volume", mount_path="/root/mount_file", sub_path=None, read_only=True)
configmaps = ["test-configmap-1", "test-configmap-2"]
volume = Volume(name="test-volume", configs={"persistentVolumeClaim": {"claimName": "test-volume"}})


def security(value):
    """One term; its expressions are a list."""
    return {
        "labelSelector": {"matchExpressions": [{"key": "security", "operator": "In", "values": [value]}]},
        "topologyKey": "kubernetes.io/hostname",
    }


affinity = {
    "nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            # not a list: so the page has it
            {"weight": 1, "preference": {"matchExpressions": {"key": "disktype", "operator": "In", "values": ["ssd"]}}}
        ]
    },
    "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [security("S1")]},
    "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [security("S2")]},
}
tolerations = [{"key": "key", "operator": "Equal", "value": "value"}]

with DAG("first_page"):
    k = KubernetesPodOperator(
        namespace="default",
        image="ubuntu:16.04",
        cmds=["bash", "-cx"],
        arguments=["echo", "10"],
        labels={"foo": "bar"},
        secrets=[secret_file, secret_env],
        volume=[volume],
        volume_mounts=[volume_mount],
        name="test",
        task_id="task",
        affinity=affinity,
    )

with DAG("second_page"):
    k = KubernetesPodOperator(
        namespace="default",
        image="ubuntu:16.04",
        cmds=["bash", "-cx"],
        arguments=["echo", "10"],
        labels={"foo": "bar"},
        secrets=[secret_file, secret_env, secret_all_keys],
        volumes=[volume],
        volume_mounts=[volume_mount],
        name="test",
        task_id="task",
        affinity=affinity,
        is_delete_operator_pod=True,
        hostnetwork=False,
        tolerations=tolerations,
        configmaps=configmaps,
    )

with DAG("bad_templates", params={"n": 1}):
    KubernetesPodOperator(
        task_id="undefined", image="busybox", cmds=["echo", "{{ params.missing }}"], retries=1, retry_delay=0
    )
    KubernetesPodOperator(
        task_id="endless",
        image="busybox",
        cmds=["echo", "{% for a in range(9**5) %}{% for b in range(9**5) %}{% endfor %}{% endfor %}"],
    )
    KubernetesPodOperator(task_id="good", image="busybox", cmds=["sh", "-c", "echo {{ params.n }} {{ ds_nodash }}"])
