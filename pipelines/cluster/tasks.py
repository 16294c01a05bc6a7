"""What only a cluster needs, applied at compile time: images, settings, resources, nodes. A local run ignores it."""

from functools import cache

from kfp import dsl, kubernetes

from components.train.gang.work import GangSpec
from pipelines.cluster.images import image
from pipelines.cluster.site import CACHE, QUEUE, TRAINING_ACCOUNT, TRAINING_LABELS, Accelerator, load_site
from pipelines.profiles import Profile
from wordmill.recipe.frameworks import Framework
from wordmill.recipe.parsing import to_struct

SECRET = "wordmill-s3"  # noqa: S105 (the name of a Kubernetes secret, not a secret)
WEBHOOK = "wordmill-webhook"
SETTINGS = "wordmill-settings"
HOUR_S = 3600
# By these Cluster Autoscaler and Karpenter leave the node of a pod alone, however little it has to do.
KEPT = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}
# Of the training task, whose pods may be lost for days: it ends by itself where it no longer gets on. Argo counts its
# longest duration from the first attempt on, so that it must be longer than any training.
RETRIES, RETRIED_S = 100, 365 * 24 * HOUR_S
USER = 10001  # of every image
# How long a run's objects, and with them its pods' logs, stay in the cluster: over a weekend where it failed.
CONFIG = dsl.PipelineConfig(ttl_seconds_after_success=24 * HOUR_S, ttl_seconds_after_failure=96 * HOUR_S)

# The environment variable that each of their keys becomes.
SECRET_VARIABLES = {"access_key": "AWS_ACCESS_KEY_ID", "secret_key": "AWS_SECRET_ACCESS_KEY"}
SETTINGS_VARIABLES = {"s3_endpoint": "AWS_ENDPOINT_URL", "region": "AWS_DEFAULT_REGION", "bucket": "WORDMILL_BUCKET",
                      "mlflow": "MLFLOW_TRACKING_URI", "cache": "WORDMILL_CACHE"}  # fmt: skip

# What a stage's pod gets at most, CPUs and memory, and after how many hours it is ended.
STAGES = {
    "fresh": ("1", "2Gi", 1),
    "fetch": ("4", "4Gi", 24),
    "shard": ("16", "16Gi", 12),
    "train": ("1", "2Gi", 0),  # of a pod that has a job of several nodes made; a profile's own otherwise
    "evaluate": ("8", "16Gi", 4),
    "export": ("4", "16Gi", 2),
    "smoke": ("4", "16Gi", 2),
    "gate": ("4", "8Gi", 1),
    "report": ("2", "4Gi", 1),
}


def configure(task: dsl.PipelineTask, stage: str, environment: str, name: str) -> dsl.PipelineTask:
    """Give a task its name, image, resources and deadline, and the way to S3, MLflow and the shared cache."""
    task.set_display_name(name)
    task.set_container_image(image(environment))
    # Stages find finished work by content digest themselves, which KFP's cache key does not hold.
    task.set_caching_options(False)
    limit(task, *STAGES[stage])
    kubernetes.use_secret_as_env(task, SECRET, SECRET_VARIABLES)
    kubernetes.use_config_map_as_env(task, SETTINGS, SETTINGS_VARIABLES)
    kubernetes.mount_pvc(task, CACHE, "/cache")
    # Kubeflow sets the rest of what a namespace with restricted pod security asks for.
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    return task


def limit(task: dsl.PipelineTask, cpu: str, memory: str, hours: int) -> None:
    """Set a task's resources, asked for and limited alike, and its deadline; 0 hours set none."""
    task.set_cpu_request(cpu).set_cpu_limit(cpu)
    task.set_memory_request(memory).set_memory_limit(memory)
    if hours:
        kubernetes.set_timeout(task, hours * HOUR_S)


def notify(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Let a task tell the team's webhook, where the site has one."""
    kubernetes.use_secret_as_env(task, WEBHOOK, {"url": "WORDMILL_WEBHOOK"}, optional=True)
    return task


def train_on(task: dsl.PipelineTask, profile: Profile) -> dsl.PipelineTask:
    """Give the training task a node's devices, or, for several nodes, time to watch the job that it makes.

    A pod that is lost is run again, and training goes on where its last checkpoint is. Which other ends are repeated,
    says the site's Argo alone.
    """
    for name, value in KEPT.items():
        kubernetes.add_pod_annotation(task, name, value)
    task.set_retry(RETRIES, backoff_duration="60s", backoff_factor=1.0, backoff_max_duration=f"{RETRIED_S}s")
    if profile.nodes > 1:
        kubernetes.set_timeout(task, (profile.hours + 1) * HOUR_S)  # the job's own deadline comes first
        return task
    limit(task, profile.cpu, profile.memory, profile.hours)
    return accelerate(task, profile, profile.processes)


def gang_job(profile: Profile, framework: Framework) -> dict[str, object]:
    """Return what the job of a profile of several nodes is to be; empty for one node."""
    if profile.nodes == 1:
        return {}
    site = load_site()
    plain = Accelerator(resource="", nodes={}, labels={})
    accelerator = plain if profile.device == "cpu" else _accelerator(profile.device)
    spec = GangSpec(
        nodes=profile.nodes, processes=profile.processes, framework=framework, device=profile.device,
        image=image(profile.environment(framework)), resource=accelerator.resource, node_labels=accelerator.nodes,
        labels=TRAINING_LABELS | accelerator.labels, cpu=profile.cpu, memory=profile.memory, shm=profile.shm,
        deadline_s=profile.hours * HOUR_S, namespace=site.namespace, queue=QUEUE, account=TRAINING_ACCOUNT,
        claim=CACHE, user=USER, secret=SECRET, secret_variables=SECRET_VARIABLES, settings=SETTINGS,
        settings_variables=SETTINGS_VARIABLES,
    )  # fmt: skip
    return to_struct(spec)


def accelerate(task: dsl.PipelineTask, profile: Profile, count: int) -> dsl.PipelineTask:
    """Give a task accelerators on nodes that have them, and the shared memory that its processes need."""
    # A pod's default of 64 MiB breaks collective communication.
    kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=profile.shm)  # noqa: S108
    if profile.device == "cpu":
        return task
    accelerator = _accelerator(profile.device)
    task.set_accelerator_type(accelerator.resource).set_accelerator_limit(count)
    for key, value in accelerator.nodes.items():
        kubernetes.add_node_selector(task, key, value)
    for key, value in accelerator.labels.items():
        kubernetes.add_pod_label(task, key, value)
    return task


@cache
def _accelerator(device: str) -> Accelerator:
    known = load_site().accelerators
    if device not in known:
        raise ValueError(f"values.yaml: spec.accelerators: no '{device}', found {', '.join(known) or 'none'}")
    return known[device]
