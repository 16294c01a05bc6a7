from tests.pipelines.kfp_server import kfp, spec

__all__ = ["kfp", "spec"]
