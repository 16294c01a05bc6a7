import json
import subprocess

import pytest

from pipelines.output import print_json, to_type, told_beside


@pytest.mark.parametrize("wanted", [True, False])
def test_what_is_told_on_the_way_stands_beside_the_document(wanted: bool, capfd: pytest.CaptureFixture[str]) -> None:
    with told_beside(wanted):
        print("starting s3")
        subprocess.run(["echo", "fetch words: done"], check=True)
    print_json({"text": "é"})
    out, error = capfd.readouterr()
    told = ["fetch words: done", "starting s3"]
    assert sorted(error.splitlines()) == (told if wanted else [])
    document = out if wanted else out.partition("{")[1] + out.partition("{")[2]
    assert json.loads(document) == {"text": "é"}
    assert ("starting s3" in out) is not wanted


def test_standard_output_is_back_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="wrong"), told_beside(True):
        raise ValueError("wrong")
    subprocess.run(["echo", "here"], check=True)
    assert capfd.readouterr().out == "here\n"


@pytest.mark.parametrize(
    ("called", "told"),
    [
        ("/usr/bin/wordmill", ["wordmill images", "wordmill run small"]),
        ("/checkout/pipelines/__main__.py", ["make images", "make run RECIPE=small"]),
    ],
)
def test_what_is_to_be_typed_is_told_in_the_words_of_whatever_was_called(
    called: str, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [called, "run"])
    assert [to_type("images"), to_type("run", "RECIPE=small", "small")] == told
