"""The scan finds what was put there: one that finds nothing anywhere would look the same as a clean tree."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from tools.scan import audited, layer, secrets

# In pieces, so that the scan of this tree does not find them here.
KEY = "AKIA" + "IOSFODNN7EXAMPLQ"
PRIVATE = "-----BEGIN RSA " + "PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        (f"key = '{KEY}'\n", ["AWS Access Key"]),
        (f"{PRIVATE}\n", ["Private Key"]),
        ("a: 1\nurl: https://me:" + "hunter2@example.com/simple\n", ["Basic Auth Credentials"]),
        ("secretName: wordmill-s3\nsecretKey: access_key\n", []),
        ("digest: " + "0123456789abcdef" * 4 + "\n", []),
    ],
)
def test_secrets_are_found_and_their_names_are_not(text: str, kinds: list[str], tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text(text, encoding="utf-8")
    assert [line.rpartition(": ")[2] for line in secrets(tmp_path, ["some.yaml"])] == kinds


def test_of_a_layer_all_but_packages_is_looked_through_and_files_for_secrets_are_named(tmp_path: Path) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as files:
        for name in ("app/settings.py", "./usr/lib/python3.11/base64.py", "opt/wordmill/lib/x.py",
                     "home/wordmill/.netrc", "etc/pip.conf", "app/components/__pycache__/x.pyc", "empty"):  # fmt: skip
            entry = tarfile.TarInfo(name)
            entry.size = 0 if name == "empty" else 4
            files.addfile(entry, io.BytesIO(b"text"))
    content.seek(0)
    named = list(layer(content, "0123", tmp_path))
    assert named == ["layer 0123: home/wordmill/.netrc", "layer 0123: etc/pip.conf"]
    unpacked = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert unpacked == ["app/settings.py", "home/wordmill/.netrc"]


def test_a_package_that_could_not_be_asked_of_counts_as_found() -> None:
    report = {"dependencies": [
        {"name": "a", "version": "1.0", "vulns": []},
        {"name": "b", "version": "2.0", "vulns": [{"id": "X-1", "fix_versions": ["2.1", "3.0"]},
                                                  {"id": "X-2", "fix_versions": []}]},
        {"name": "c", "skip_reason": "not known"},
    ]}  # fmt: skip
    assert audited(json.dumps(report)) == [
        "b 2.0: X-1, mended in 2.1, 3.0", "b 2.0: X-2, mended in no version yet", "c: not known",
    ]  # fmt: skip
