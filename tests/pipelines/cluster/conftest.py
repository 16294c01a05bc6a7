from tests.pipelines.cluster.kfp_server import kfp, spec

__all__ = ["kfp", "spec"]
