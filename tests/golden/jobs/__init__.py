"""The expected jobs of training; `python -m tests.golden.jobs` accepts them as they are made now."""

from typing import Any

import yaml

from components.train.gang.manifests import Document, ascend_job, batch_job, volcano_job
from components.train.gang.work import GangSpec
from pipelines.cluster.tasks import gang_job
from pipelines.profiles import PROFILES, Profile
from wordmill.recipe.parsing import from_json, struct_text

KEY = "0123456789abcdef0123456789abcdef"
OWNER = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run-x", "uid": "u-1"}
GPUS = Profile(name="gpu-1", device="cuda", processes=8, nodes=2)
CPUS = Profile(name="cpu", device="cpu", processes=2, nodes=2)


def spec(profile: Profile, framework: Any) -> GangSpec:
    return from_json(GangSpec, struct_text(gang_job(profile, framework)))


def jobs() -> dict[str, Document]:
    """Return jobs by the name of their file."""
    npus = PROFILES["ascend-4x8"]
    return {
        "ascend-mindspore": ascend_job(spec(npus, "mindspore"), KEY, OWNER),
        "ascend-pytorch": ascend_job(spec(npus, "pytorch"), KEY, OWNER),
        "batch-npu-mindspore": batch_job(spec(PROFILES["ascend-8p"], "mindspore"), KEY, OWNER),
        "batch-cuda-pytorch": batch_job(spec(PROFILES["gpu-1"], "pytorch"), KEY, OWNER),
        "volcano-npu-mindspore": volcano_job(spec(npus, "mindspore"), KEY, OWNER),
        "volcano-cuda-pytorch": volcano_job(spec(GPUS, "pytorch"), KEY, OWNER),
        "volcano-cpu-mindspore": volcano_job(spec(CPUS, "mindspore"), KEY, None),
    }


def text(job: Document) -> str:
    """Return a job as YAML, what it repeats written out."""
    return yaml.dump(job, Dumper=_Plain, sort_keys=False)


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True
