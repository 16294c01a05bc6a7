"""The library: everything but stages and pipelines."""

import os

# Else MLflow sends its maker what it is used for: https://mlflow.org/docs/latest/community/usage-tracking.html
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
