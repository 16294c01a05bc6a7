from dataclasses import replace

import pytest

from pipelines.cluster.site import Sizes, load_site
from pipelines.cluster.sizes import GENERAL, PRESETS, PodSize, misfit, over_quota, sizes_of
from pipelines.cluster.tasks import HOURS
from pipelines.profiles import PROFILES, one_node

SMALL_NODE = {"cpu": "2", "memory": "8Gi"}
HALF = PodSize(cpu="500m", memory="512Mi", cpu_limit="1", memory_limit="1Gi")


def with_sizes(preset: str, **changed: PodSize) -> dict[str, PodSize]:
    return sizes_of(replace(load_site(), sizes=Sizes(preset=preset, changed=changed)))  # type: ignore[arg-type]


def test_every_stage_and_profile_has_a_size() -> None:
    assert set(GENERAL) == {*HOURS, "watch", *(f"train {name}" for name in PROFILES)}
    for preset in PRESETS:
        assert set(with_sizes(preset)) == set(GENERAL)


def test_what_a_site_changes_stands_above_its_preset() -> None:
    found = with_sizes("small", shard=HALF)
    assert found["shard"] == HALF
    assert found["train cpu"] == PodSize(cpu="20m", memory="2Gi", cpu_limit="2", memory_limit="4Gi")
    assert found["train gpu-1"] == with_sizes("gpu")["train gpu-1"]
    with pytest.raises(ValueError, match="values.yaml: spec.sizes.changed: no 'shards': did you mean 'shard'"):
        with_sizes("small", shards=HALF)


def test_on_a_small_machine_each_stage_finds_room_beside_kubernetes_and_kubeflow() -> None:
    """They ask for some 1.9 of its 2 cores and 3.7 of its 8 GiB, MLflow and PostgreSQL of ours for 70m and 1 GiB."""
    for name in (*HOURS, "train cpu"):
        assert misfit(with_sizes("small")[name], [{"cpu": "30m", "memory": "3Gi"}]) == "", name


def test_what_fits_on_no_node_or_not_into_the_quota_is_named() -> None:
    assert misfit(HALF, [{"cpu": "250m", "memory": "64Gi"}, {"cpu": "4", "memory": "256Mi"}]) == (
        "asks for 500m CPUs and 512Mi, the largest node has 4 and 256Mi for pods, so it would wait for ever"
    )
    assert misfit(HALF, [SMALL_NODE]) == ""
    assert over_quota(HALF, {"limits.cpu": "1", "limits.memory": "1000Mi"}) == (
        "takes 1Gi of limits.memory, the namespace's quota is 1000Mi"
    )
    assert over_quota(HALF, {"pods": "1"}) == ""


@pytest.mark.parametrize(
    ("device", "processes", "name"),
    [("cpu", 1, "cpu"), ("cpu", 64, "cpu"), ("npu", 1, "ascend-1p"), ("npu", 4, "ascend-8p"), ("cuda", 8, "gpu-1")],
)
def test_a_machine_of_ones_own_has_the_size_of_the_next_profile(device: str, processes: int, name: str) -> None:
    profile = one_node(device, processes)
    assert (profile.name, profile.processes, profile.nodes) == (name, processes, 1)
