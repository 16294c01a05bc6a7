"""Reads pictures with a registered model, in a program that has MLflow and knows nothing of this project.

    export MLFLOW_TRACKING_URI=http://...    # `make up` prints that of this machine's own server
    pip install mlflow && pip install -r $(python -c \
      "import mlflow; print(mlflow.pyfunc.get_model_dependencies('models:/wordmill-quickstart@champion'))")
    python examples/use_registered_model.py wordmill-quickstart@champion word.png ...

A version is named by its number where there is no champion yet: wordmill-quickstart/1. Its code travels with it.
"""

import argparse
import os
import sys

import mlflow.pyfunc
from mlflow.exceptions import MlflowException


def main(name: str, pictures: list[str]) -> None:
    """Print what the model says of itself, and a line for each picture."""
    recogniser = mlflow.pyfunc.load_model(f"models:/{name}")
    card = recogniser.metadata.metadata
    print(f"{name} reads {card['charset']['symbols'] if 'symbols' in card['charset'] else card['charset']}")
    readings = recogniser.predict(pictures, params={"alternatives": 2})
    for picture, row in zip(pictures, readings.itertuples(), strict=True):
        others = ", ".join(other["text"] for other in row.alternatives if other["text"] != row.text)
        print(f"{picture}\t{row.text}\t{row.confidence:.3f}\tor {others or 'nothing else'}")


def command_line() -> argparse.ArgumentParser:
    """Return what this takes."""
    parser = argparse.ArgumentParser(description="Reads pictures with a registered model of MLFLOW_TRACKING_URI.")
    parser.add_argument("name", help="such as wordmill-quickstart@champion, or wordmill-quickstart/1")
    parser.add_argument("pictures", nargs="+", help="files")
    return parser


if __name__ == "__main__":
    options = command_line().parse_args()
    if "MLFLOW_TRACKING_URI" not in os.environ:
        sys.exit("error: MLFLOW_TRACKING_URI is not set: it is the address of the MLflow server with the model")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # of minutes in which a server may be gone
    try:
        main(options.name, options.pictures)
    except (ValueError, MlflowException) as error:
        sys.exit(f"error: {options.name}: {error}")
