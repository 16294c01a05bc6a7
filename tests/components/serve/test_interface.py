import numpy as np

from components.serve.app import make_app
from tests.components.train.trained import DATA
from wordmill.inference.packaged.pyfunc import TextRecogniser
from wordmill.text.charset import charset_of
from wordmill.text.decoding import CtcCodec


def test_the_interface_is_described() -> None:
    def network(images: np.ndarray) -> np.ndarray:
        raise AssertionError

    described = make_app(TextRecogniser(DATA, CtcCodec(charset=charset_of(DATA)), network)).openapi()
    assert set(described["paths"]) == {"/read", "/health", "/metrics"}
    read = described["paths"]["/read"]["post"]
    assert set(read["requestBody"]["content"]) == {"image/*", "multipart/form-data", "application/json"}
    assert {parameter["name"]: parameter["schema"]["maximum"] for parameter in read["parameters"]} == {
        "characters": 1, "alternatives": 20}  # fmt: skip
    assert sorted(read["responses"]) == ["200", "400", "408", "413", "415", "422", "431", "500", "503"]
    statuses = described["paths"]["/health"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert statuses["properties"]["status"]["enum"] == ["ready", "saturated", "stopped"]
