"""What only a cluster needs, applied at compile time: images, settings by reference, memory. A local run ignores it."""

from dataclasses import dataclass

from kfp import dsl, kubernetes

from pipelines.images import image

SECRET = "wordmill-s3"  # noqa: S105 (the name of a Kubernetes secret, not a secret)
SETTINGS = "wordmill-settings"
ACCELERATORS = {"cuda": "nvidia.com/gpu", "npu": "huawei.com/Ascend910"}


@dataclass(frozen=True, kw_only=True)
class Where:
    """The devices that train: their kind (cpu, cuda, npu) and how many processes, one to a device."""

    device: str
    processes: int


def place(task: dsl.PipelineTask, environment: str, name: str) -> dsl.PipelineTask:
    """Give a task its name, its image and, from the namespace's secret and config map, the way to S3 and MLflow."""
    task.set_display_name(name)
    task.set_container_image(image(environment))
    # Stages find finished work by content digest themselves, which KFP's cache key does not hold.
    task.set_caching_options(False)
    kubernetes.use_secret_as_env(
        task, SECRET, {"access_key": "AWS_ACCESS_KEY_ID", "secret_key": "AWS_SECRET_ACCESS_KEY"}
    )
    kubernetes.use_config_map_as_env(
        task,
        SETTINGS,
        {"s3_endpoint": "AWS_ENDPOINT_URL", "bucket": "WORDMILL_BUCKET", "mlflow": "MLFLOW_TRACKING_URI"},
    )
    return task


def accelerate(task: dsl.PipelineTask, device: str, count: int) -> dsl.PipelineTask:
    """Give a task its accelerators, and the shared memory that processes of one pod exchange data through."""
    # A pod's default of 64 MiB breaks collective communication.
    kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit="16Gi")  # noqa: S108
    if device in ACCELERATORS:
        task.set_accelerator_type(ACCELERATORS[device]).set_accelerator_limit(count)
    return task
