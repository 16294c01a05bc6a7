"""What a stage's pod asks for, which a node must have free, and what it may take: a site's preset, and its changes."""

import re
from collections.abc import Mapping, Sequence

from kubernetes.utils.quantity import parse_quantity

from pipelines.cluster.site import PodSize, Site
from wordmill.recipe.parsing import nearest


def _size(cpu: str, memory: str, cpu_limit: str = "", memory_limit: str = "") -> PodSize:
    return PodSize(cpu=cpu, memory=memory, cpu_limit=cpu_limit or cpu, memory_limit=memory_limit or memory)


# By stage; training by profile. `watch` is the stage that has a job train, whose pods are the profile's.
# What is asked for is what the small quickstart takes, with room: 67 MiB to fetch, 113 to shard (598 on two cores at
# full rate), 238 to evaluate, 482 to export, 527 to smoke, 157 to gate, 152 to report; training gets what it may take.
GENERAL = {
    "fresh": _size("100m", "512Mi", "1", "2Gi"),
    "fetch": _size("500m", "512Mi", "4", "4Gi"),
    "shard": _size("2", "1Gi", "16", "16Gi"),
    "watch": _size("100m", "512Mi", "1", "2Gi"),
    "evaluate": _size("2", "1Gi", "8", "16Gi"),
    "export": _size("1", "1Gi", "4", "16Gi"),
    "smoke": _size("1", "1Gi", "4", "16Gi"),
    "gate": _size("500m", "512Mi", "4", "8Gi"),
    "report": _size("250m", "512Mi", "2", "4Gi"),
    "train cpu": _size("8", "32Gi"),
    "train gpu-1": _size("16", "64Gi"),
    "train ascend-1p": _size("24", "96Gi"),
    "train ascend-8p": _size("128", "512Gi"),
    "train ascend-4x8": _size("128", "512Gi"),
}
# A machine of 2 cores and 8 GiB runs Kubernetes and Kubeflow too, which ask for nearly two cores and never take them.
PRESETS = {
    "small": {
        **{stage: _size("20m", "512Mi", "2", "3Gi") for stage in ("fresh", "fetch", "watch", "gate", "report")},
        **{stage: _size("20m", "1Gi", "2", "4Gi") for stage in ("shard", "evaluate", "export", "smoke")},
        "train cpu": _size("20m", "2Gi", "2", "4Gi"),
    },
    "gpu": {},
    # A chip's share of a node of 192 cores and eight chips; atc, which compiles OM files, takes many of them.
    "npu": {stage: _size("24", "16Gi", "24", "64Gi") for stage in ("evaluate", "export", "smoke")},
}

# How Kubernetes refuses a pod: names and values of what is asked for, and of what the quota allows.
QUOTA = re.compile(r"exceeded quota: [^,]+, requested: ([\w./=,-]*\w), used: [\w./=,-]+, limited: ([\w./=,-]*\w)")
REFUSALS = ("is forbidden", "denied the request")  # by what else admits pods: pod security, bounds, a webhook


def sizes_of(site: Site) -> dict[str, PodSize]:
    """Return a site's sizes by stage, of training by `train PROFILE`; ValueError for a change of something else."""
    for name in site.sizes.changed:
        if name not in GENERAL:
            raise ValueError(f"values.yaml: spec.sizes.changed: no '{name}': {nearest(name, list(GENERAL))}")
    return GENERAL | PRESETS[site.sizes.preset] | site.sizes.changed


def fits(wanted: Mapping[str, str], places: Sequence[Mapping[str, str]]) -> bool:
    """Tell whether one place, empty as it may be, can give all that is wanted."""
    return any(all(_more(place.get(name, "0"), value) for name, value in wanted.items()) for place in places)


def misfit(size: PodSize, places: Sequence[Mapping[str, str]]) -> str:
    """Say what of a size no node has, "" where one has room for it; places: what each node can give to pods."""
    if fits({"cpu": size.cpu, "memory": size.memory}, places):
        return ""
    largest = max(places, key=lambda place: (parse_quantity(place["cpu"]), parse_quantity(place["memory"])))
    there = f"{largest['cpu']} and {largest['memory']}"
    return (
        f"asks for {size.cpu} CPUs and {size.memory}, the largest node has {there} for pods, so it would wait for ever"
    )


def too_few(resource: str, count: int, places: Sequence[Mapping[str, str]]) -> str:
    """Say that no node has so many devices, "" where one has; each place has some."""
    most = max(int(place[resource]) for place in places)
    return "" if most >= count else f"takes {count} {resource} of a node, the most that one has is {most}"


def refused_for_good(text: str) -> bool:
    """Tell whether Kubernetes refuses a pod for more than a quota allows, however little is taken, or by a policy."""
    match = QUOTA.search(text)
    if match is None:
        return "exceeded quota" not in text and any(refusal in text for refusal in REFUSALS)
    asked, allowed = (dict(part.split("=") for part in found.split(",")) for found in match.groups())
    return any(not _more(allowed[name], value) for name, value in asked.items() if name in allowed)


def over_quota(size: PodSize, quota: Mapping[str, str]) -> str:
    """Say what of a size is more than the namespace may take altogether, "" for none."""
    taken = {"requests.cpu": size.cpu, "requests.memory": size.memory, "limits.cpu": size.cpu_limit,
             "limits.memory": size.memory_limit}  # fmt: skip
    for name, value in taken.items():
        if name in quota and not _more(quota[name], value):
            return f"takes {value} of {name}, the namespace's quota is {quota[name]}"
    return ""


def _more(given: str, wanted: str) -> bool:
    """Tell whether one quantity of Kubernetes's is as much as another, or more."""
    return bool(parse_quantity(given) >= parse_quantity(wanted))
