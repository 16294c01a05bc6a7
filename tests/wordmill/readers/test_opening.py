from pathlib import Path

import numpy as np
import pytest

from tests.wordmill.shards.made_sets import example, write_lmdb, write_records
from wordmill.readers.fsns import Fsns
from wordmill.readers.label_file import LabelFile
from wordmill.readers.lmdb import Lmdb
from wordmill.readers.opening import open_reader
from wordmill.recipe.catalogue import Entry
from wordmill.synth.renderer import SynthSpec, render

SOURCE = "synth://words?seed=7&count=9&fonts=train&words=train&difficulty=easy"


def test_rendered_words_are_those_of_the_renderer(tmp_path: Path) -> None:
    reader = open_reader(Entry(source=SOURCE, reader="synth", samples=9, licence="CC0"), tmp_path)
    expected = list(render(SynthSpec.parse(SOURCE), 0, 9))
    found = list(reader.read([5, 4, 8, 4]))
    assert len(reader) == 9
    assert [s.where for s in found] == ["index 5", "index 4", "index 8", "index 4"]
    assert [s.label for s in found] == [expected[index][1] for index in (5, 4, 8, 4)]
    assert all(np.array_equal(s.image, expected[index][0]) for s, index in zip(found, (5, 4, 8, 4), strict=True))


@pytest.mark.parametrize("form", ["lmdb", "label_file", "fsns"])
def test_every_form_is_read_in_any_order(form: str, tmp_path: Path) -> None:
    words = ["one", "two", "three", "four", "five"]
    if form == "lmdb":
        write_lmdb(tmp_path / "a", words[:2])
        write_lmdb(tmp_path / "b", words[2:])
    elif form == "fsns":
        examples = [example({"image/encoded": word.encode(), "image/text": word.encode()}) for word in words]
        write_records(tmp_path / "test-00000-of-00002", examples[:2])
        write_records(tmp_path / "test-00001-of-00002", examples[2:])
    else:
        for word in words:
            (tmp_path / word).write_bytes(word.encode())
        (tmp_path / "gt.txt").write_text("".join(f"{word}\t{word}\n" for word in words))
    texts = {"labels": "gt.txt", "label_format": "dtrb"} if form == "label_file" else {}
    reader = open_reader(Entry(source="file:///x", reader=form, samples=5, licence="CC0", **texts), tmp_path)
    assert isinstance(reader, {"lmdb": Lmdb, "label_file": LabelFile, "fsns": Fsns}[form])
    order = [4, 0, 3, 3, 1, 2]
    found = list(reader.read(iter(order)))
    assert [s.label for s in found] == [words[index] for index in order]
    assert all(s.problem == "" and s.label in bytes(s.image).decode() for s in found)
    assert list(reader.read([])) == []
