"""What a client of MLflow's server is told of pictures that cannot be read."""

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE


class UnreadableError(MlflowException):
    """An answer of 400 with one message: of any other error the server tells a stack trace, with its folders."""

    def __init__(self, message: str) -> None:
        self.told = message
        super().__init__(message, error_code=INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        """The message alone, before which the server writes all that it was sent."""
        return self.told

    @message.setter
    def message(self, value: str) -> None:
        pass
