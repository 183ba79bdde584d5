"""Container tasks, pods of any image: secrets, volumes, settings of the cluster, private images, and results.

Every parameter has Airflow's name. What is Kubernetes' own is written as a mapping, as an object of the Kubernetes
client, or as one of the three classes of `dispatcher`.

The pods of the first task need these in their namespace:

    kubectl create secret generic airflow-secrets --from-literal=sql_alchemy_conn=postgresql://db
    kubectl create secret generic airflow-secrets-2 --from-literal=TOKEN=t
    kubectl create configmap test-configmap-1 --from-literal=COLOUR=blue
    kubectl create configmap test-configmap-2 --from-literal=SIZE=large
    and a PersistentVolumeClaim test-volume
"""

from dispatcher import Secret, Volume, VolumeMount
from routing import DAG, BashOperator, KubernetesPodOperator, task

# One key of a secret as a file, one key as a variable, all keys as variables of their own names.
secret_file = Secret("volume", "/etc/sql_conn", "airflow-secrets", "sql_alchemy_conn")
secret_env = Secret("env", "SQL_CONN", "airflow-secrets", "sql_alchemy_conn")
secret_all_keys = Secret("env", None, "airflow-secrets-2")

volume = Volume(name="test-volume", configs={"persistentVolumeClaim": {"claimName": "test-volume"}})
volume_mount = VolumeMount("test-volume", mount_path="/root/mount_file", sub_path=None, read_only=True)

affinity = {
    "nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {
                "weight": 1,
                "preference": {"matchExpressions": [{"key": "disktype", "operator": "In", "values": ["ssd"]}]},
            }
        ]
    },
    "podAntiAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {
                "weight": 1,
                "podAffinityTerm": {
                    "labelSelector": {"matchExpressions": [{"key": "security", "operator": "In", "values": ["S2"]}]},
                    "topologyKey": "kubernetes.io/hostname",
                },
            }
        ]
    },
}

with DAG("kubernetes_pod_operator", description="Container tasks", params={"greeting": "hello"}):
    everything = KubernetesPodOperator(
        task_id="task",
        name="test",
        namespace="default",
        image="ubuntu:24.04",
        cmds=["bash", "-c"],
        arguments=[
            "echo $COLOUR $SIZE $TOKEN; echo $SQL_CONN; cat /etc/sql_conn/sql_alchemy_conn; ls /root/mount_file"
        ],
        labels={"foo": "bar"},
        secrets=[secret_file, secret_env, secret_all_keys],
        configmaps=["test-configmap-1", "test-configmap-2"],
        volumes=[volume],
        volume_mounts=[volume_mount],
        affinity=affinity,
        tolerations=[{"key": "key", "operator": "Equal", "value": "value"}],
        hostnetwork=False,
        on_finish_action="delete_pod",
    )

    # The image of a private registry: the secret is of the type docker-registry.
    private = KubernetesPodOperator(
        task_id="private_image",
        image="quay.io/apache/bash",
        image_pull_secrets="testquay",
        cmds=["bash", "-c"],
        arguments=["echo {{ params.greeting }} from {{ ti.task_id }} on {{ ds }}"],  # rendered for each run
    )

    # A result: JSON in this file, written by any program of any image.
    numbers = KubernetesPodOperator(
        task_id="write_xcom",
        image="alpine",
        cmds=["sh", "-c", "mkdir -p /airflow/xcom; echo '[1, 2, 3, 4]' > /airflow/xcom/return.json"],
        do_xcom_push=True,
    )

    @task
    def total(values):
        """A result of a pod is an argument like any other."""
        return sum(values)

    total(numbers.output)
    numbers >> BashOperator(task_id="first", bash_command="echo {{ ti.xcom_pull('write_xcom')[0] }}")
    everything >> private
