"""A registered model behind MLflow's own server."""

import base64
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from tests.components.export.exported import png
from tests.wordmill.inference.maker import CRNN, Maker
from wordmill.pictures.image import Picture

SERVER = "mlflow.pyfunc.scoring_server"
Ask = Callable[[Any], Any]


@pytest.fixture
def made(maker: Callable[..., Maker]) -> Maker:
    made = maker(CRNN)
    made.decide(made.exported())
    return made


@pytest.fixture
def ask(made: Maker) -> Iterator[Ask]:
    """Ask the server's own function for readings of a document, or of pictures: its answer, or what is wrong."""
    scoring_server = importlib.import_module(SERVER)  # anew, if a test before had it
    model = mlflow.pyfunc.load_model(f"models:/wordmill-{made.recipe}/1")

    def asked(what: Any) -> Any:
        try:
            document = json.dumps(what if isinstance(what, dict) else {"inputs": what})
            answer = scoring_server.invocations(document, "application/json", model, model.metadata.get_input_schema())
        except mlflow.MlflowException as error:
            return error.serialize_as_json()
        return json.loads(answer.response)["predictions"]

    yield asked
    for name in [name for name in sys.modules if name.startswith(SERVER)]:
        del sys.modules[name]


def test_base64_is_read_and_a_path_is_none_and_nothing_of_the_servers_files_is_told(
    ask: Ask, made: Maker, images: list[Picture], tmp_path: Path
) -> None:
    texts, _ = made.expected(images[:2])
    packed = [base64.b64encode(png(image)).decode() for image in images[:2]]
    assert [answer["text"] for answer in ask(packed)] == texts
    assert [answer["text"] for answer in ask([f"data:image/png;base64,{packed[0]}"])] == texts[:1]
    assert [answer["text"] for answer in ask([base64.encodebytes(png(images[0])).decode()])] == texts[:1]  # in lines
    assert ask([]) == []
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"hush hush")
    for path in (str(secret), "/etc/hostname", "word.png"):
        told = ask([path])
        assert "image 0: expected a picture's bytes in base64" in told
        assert "hush" not in told
    assert "not a whole picture: 5 bytes that begin with b'hello'" in ask([base64.b64encode(b"hello").decode()])


def test_every_form_of_a_table_is_read(ask: Ask, made: Maker, images: list[Picture]) -> None:
    texts, _ = made.expected(images[:2])
    packed = [base64.b64encode(png(image)).decode() for image in images[:2]]
    rows = [{"image": text} for text in packed]
    for document in (
        {"dataframe_split": {"columns": ["image"], "data": [[text] for text in packed]}}, {"dataframe_records": rows},
        {"instances": rows}, {"instances": packed}, {"inputs": packed}, {"inputs": {"image": packed}},
    ):  # fmt: skip
        assert [answer["text"] for answer in ask(document)] == texts, document.keys()
    assert ask({"dataframe_split": {"columns": ["image"], "data": []}}) == []
    assert "expected a column 'image', found ['picture']" in ask({"dataframe_records": [{"picture": packed[0]}]})


def test_what_is_wrong_is_told_in_one_sentence_without_what_was_sent_and_the_servers_folders(
    ask: Ask, images: list[Picture]
) -> None:
    whole = base64.b64encode(png(images[0])).decode()
    assert json.loads(ask([whole, "absent.png"])) == {
        "error_code": "INVALID_PARAMETER_VALUE", "error_class": "INVALID_PARAMETER_VALUE", "sqlstate": "KAM00",
        "message": "1 of 2 images cannot be read: image 1: expected a picture's bytes in base64",
    }  # fmt: skip
    assert json.loads(ask({"inputs": "absent.png"}))["message"] == (
        "an array of several images has shape (N, H, W, C), found (): hand over a list"
    )


def test_python_callers_have_paths_and_base64_too(made: Maker, images: list[Picture], tmp_path: Path) -> None:
    assert SERVER not in sys.modules
    (tmp_path / "word.png").write_bytes(png(images[0]))
    model = mlflow.pyfunc.load_model(f"models:/wordmill-{made.recipe}/1")
    forms = [str(tmp_path / "word.png"), tmp_path / "word.png", base64.b64encode(png(images[0])).decode()]
    assert list(model.predict(forms)["text"]) == made.expected(images[:1])[0] * 3
    with pytest.raises(ValueError, match=r"image 0 \(absent.png\): \[Errno 2\]"):
        model.predict(["absent.png"])
    with pytest.raises(ValueError, match=r"image 0 \(A{1024}\): expected a path, or a picture's bytes in base64$"):
        model.predict(["A" * 5000])


def test_readings_of_nothing_have_the_types_of_all_others(made: Maker, images: list[Picture]) -> None:
    model = mlflow.pyfunc.load_model(f"models:/wordmill-{made.recipe}/1")
    none, some = model.predict([]), model.predict([png(images[0])])
    assert list(none.dtypes) == list(some.dtypes)
    assert str(none["confidence"].dtype) == "float32"
