"""What only a cluster needs, applied at compile time: images, settings, resources, nodes. A local run ignores it."""

from functools import cache

from kfp import dsl, kubernetes

from components.train.gang.manifests import UNMOVED
from components.train.gang.work import GangSpec
from pipelines.cluster.site import CACHE, QUEUE, TRAINING_ACCOUNT, TRAINING_LABELS, Accelerator, load_site
from pipelines.cluster.sizes import sizes_of
from pipelines.images.references import image
from pipelines.profiles import Profile
from wordmill.recipe.frameworks import Framework
from wordmill.recipe.parsing import to_struct

SECRET = "wordmill-s3"  # noqa: S105 (the name of a Kubernetes secret, not a secret)
WEBHOOK = "wordmill-webhook"
SETTINGS = "wordmill-settings"
HOUR_S = 3600
# Of the training task, whose pods may be lost for days: it ends by itself where it no longer gets on. Argo counts its
# longest duration from the first attempt on, so that it must be longer than any training.
RETRIES, RETRIED_S = 100, 365 * 24 * HOUR_S
USER = 10001  # of every image
# How long a run's objects, and with them its pods' logs, stay in the cluster: over a weekend where it failed, as far as
# Kubeflow's own limit, which a site sets and is a day at first, lets them.
CONFIG = dsl.PipelineConfig(ttl_seconds_after_success=24 * HOUR_S, ttl_seconds_after_failure=96 * HOUR_S)

# The environment variable that each of their keys becomes.
SECRET_VARIABLES = {"access_key": "AWS_ACCESS_KEY_ID", "secret_key": "AWS_SECRET_ACCESS_KEY"}
SETTINGS_VARIABLES = {"s3_endpoint": "AWS_ENDPOINT_URL", "region": "AWS_DEFAULT_REGION", "bucket": "WORDMILL_BUCKET",
                      "mlflow": "MLFLOW_TRACKING_URI", "cache": "WORDMILL_CACHE"}  # fmt: skip

# Of what people's browsers reach; manifests that were applied before have none.
PAGES_VARIABLES = {"mlflow_pages": "WORDMILL_MLFLOW_PAGES", "s3_pages": "WORDMILL_S3_PAGES",
                   "kubeflow_pages": "WORDMILL_KUBEFLOW_PAGES"}  # fmt: skip

# After how many hours a stage's pod is ended; training's, by its profile.
HOURS = {"fresh": 1, "fetch": 24, "shard": 12, "evaluate": 4, "export": 2, "smoke": 2, "gate": 1, "report": 1}


def configure(task: dsl.PipelineTask, stage: str, environment: str, name: str) -> dsl.PipelineTask:
    """Give a task its name, image, resources and deadline, and the way to S3, MLflow and the shared cache."""
    task.set_display_name(name)
    task.set_container_image(image(stage, environment))
    # Stages find finished work by content digest themselves, which KFP's cache key does not hold.
    task.set_caching_options(False)
    sized(task, stage if stage in HOURS else "watch")
    if hours := HOURS.get(stage):
        kubernetes.set_timeout(task, hours * HOUR_S)
        # A repetition would be multiplied by those of every level above, which Argo's defaults of a site decide on.
        task.set_retry(0, backoff_max_duration=f"{hours * HOUR_S}s")
    kubernetes.use_secret_as_env(task, SECRET, SECRET_VARIABLES)
    kubernetes.use_config_map_as_env(task, SETTINGS, SETTINGS_VARIABLES)
    kubernetes.mount_pvc(task, CACHE, "/cache")
    # Kubeflow sets the rest of what a namespace with restricted pod security asks for.
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    return task


def sized(task: dsl.PipelineTask, name: str) -> None:
    """Set what a task's pod asks for and may take."""
    size = sizes_of(load_site())[name]
    task.set_cpu_request(size.cpu).set_cpu_limit(size.cpu_limit)
    task.set_memory_request(size.memory).set_memory_limit(size.memory_limit)


def notify(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Let a task tell the team's webhook, where the site has one, and link to the site's pages."""
    kubernetes.use_config_map_as_env(task, SETTINGS, PAGES_VARIABLES, optional=True)
    kubernetes.use_secret_as_env(task, WEBHOOK, {"url": "WORDMILL_WEBHOOK"}, optional=True)
    return task


def train_on(task: dsl.PipelineTask, profile: Profile) -> dsl.PipelineTask:
    """Give the training task a node's size, or, where a job trains, time to watch that.

    A pod that is lost is run again, and training goes on where its last checkpoint is. Which other ends are repeated,
    says the site's Argo alone.
    """
    for name, value in UNMOVED.items():
        kubernetes.add_pod_annotation(task, name, value)
    task.set_retry(RETRIES, backoff_duration="60s", backoff_factor=1.0, backoff_max_duration=f"{RETRIED_S}s")
    if profile.watched:
        kubernetes.set_timeout(task, (profile.hours + 1) * HOUR_S)  # the job's own deadline comes first
        return task
    sized(task, f"train {profile.name}")
    kubernetes.set_timeout(task, profile.hours * HOUR_S)
    return accelerate(task, profile, profile.processes)


def gang_job(profile: Profile, framework: Framework) -> dict[str, object]:
    """Return what the job that trains is to be; empty for a profile whose training is the task's own."""
    if not profile.watched:
        return {}
    site = load_site()
    size = sizes_of(site)[f"train {profile.name}"]
    plain = Accelerator(resource="", nodes={}, labels={})
    accelerator = plain if profile.device == "cpu" else _accelerator(profile.device)
    spec = GangSpec(
        nodes=profile.nodes, processes=profile.processes, framework=framework, device=profile.device,
        image=image("train", profile.environment(framework)), resource=accelerator.resource,
        node_labels=accelerator.nodes,
        labels=TRAINING_LABELS | accelerator.labels, cpu=size.cpu, memory=size.memory, cpu_limit=size.cpu_limit,
        memory_limit=size.memory_limit, shm=profile.shm,
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
