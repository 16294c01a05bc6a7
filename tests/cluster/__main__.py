"""`make test-cluster`: the suite against the Kubeflow, the cluster and the site that the environment names."""

import secrets
import sys
import tempfile
import time
from pathlib import Path

from kubernetes.config import ConfigException

from pipelines.local.services import STATE
from tests.cluster.suite import Suite, run_cases
from wordmill.store.progress import duration

RECIPE = Path(__file__).resolve().parents[2] / "pipelines" / "recipes" / "quickstart.yaml"


def test_site() -> int:
    """Run all cases with a recipe of their own, which nobody's runs and schedules share."""
    started, recipe, log = time.monotonic(), f"suite_{secrets.token_hex(3)}", STATE / "test-cluster.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, log.open("w", encoding="utf-8") as file:
        (Path(folder) / f"{recipe}.yaml").write_bytes(RECIPE.read_bytes())
        try:
            suite = Suite(folder=Path(folder), recipe=recipe, log=file)
        except (ConfigException, ValueError) as error:
            print(
                f"error: {error} The suite watches and deletes pods: set KUBECONFIG, or run where kubectl reaches them"
            )
            return 1
        missed = run_cases(suite)
    print(f"{duration(time.monotonic() - started):>8}  {missed} missed; what the verbs said is in {log}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(test_site())
