"""What the process has ready that the stages of a local run fork from: no framework, nothing that starts threads."""

import os

os.environ["_KFP_RUNTIME"] = "true"  # as the command of a compiled stage: kfp leaves its compiler out

# MLflow brings protobuf along, behind whose C implementation MindSpore cannot be loaded.
os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"

import kfp.dsl.executor_main  # noqa: F401

import wordmill.store.tracking  # noqa: F401
from components import keys
from wordmill.store.keys import Ingredients
from wordmill.store.wire import descriptions

descriptions().load_service_model("s3", "service-2")
descriptions().load_data("endpoints")
for framework in keys.NETWORKS:
    Ingredients(code=(*keys.LOOP, *keys.STEPS[framework], *keys.NETWORKS[framework], *keys.PACKED, *keys.TEXTS)).found()
