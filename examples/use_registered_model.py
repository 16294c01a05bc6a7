"""Reads pictures with a registered model, in a program that has MLflow and knows nothing of this project.

    MLFLOW_TRACKING_URI=http://... python examples/use_registered_model.py wordmill-quickstart@champion word.png ...

What the model needs beside MLflow stands in the requirements.txt among its files; its code travels with it.
"""

import sys

import mlflow.pyfunc


def main(name: str, pictures: list[str]) -> None:
    """Print what the model says of itself, and a line for each picture."""
    recogniser = mlflow.pyfunc.load_model(f"models:/{name}")
    card = recogniser.metadata.metadata
    print(f"{name} reads {card['charset']['symbols'] if 'symbols' in card['charset'] else card['charset']}")
    readings = recogniser.predict(pictures, params={"alternatives": 2})
    for picture, row in zip(pictures, readings.itertuples(), strict=True):
        others = ", ".join(other["text"] for other in row.alternatives if other["text"] != row.text)
        print(f"{picture}\t{row.text}\t{row.confidence:.3f}\tor {others or 'nothing else'}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
