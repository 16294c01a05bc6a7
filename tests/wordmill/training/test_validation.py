from pathlib import Path

import numpy as np

from tests.wordmill.training.tiny import write_shard
from wordmill.shards.sets import ShardSet
from wordmill.text.charset import Charset
from wordmill.text.decoding import CtcCodec
from wordmill.training.validation import count_correct, validation_batches

LETTERS = CtcCodec(charset=Charset(name="abc", symbols="abc"))


def test_correct_are_those_whose_best_path_reads_as_the_label() -> None:
    paths = [[1, 1, 0, 2], [3, 0, 3, 3], [0, 0, 0, 0]]  # ab, cc, nothing
    logits = np.eye(4, dtype=np.float32)[np.array(paths)]
    assert count_correct(logits, ["A b!", "c", ""], LETTERS, "mindocr") == (1, 2)  # nothing to read counts for nothing
    # By DTRB's rules a label with other characters does not count.
    assert count_correct(logits, ["A b!", "c", ""], LETTERS, "dtrb") == (0, 1)
    assert count_correct(logits, ["A b!", "c", ""], LETTERS, "parseq") == (1, 2)


def test_validation_gives_every_sample_to_one_process(tmp_path: Path) -> None:
    shards = ShardSet.open([write_shard(tmp_path / "s", 600, tuple(f"{n}" for n in range(600)))])
    shares = [[label for b in validation_batches(shards, rank, 2) for label in b.labels] for rank in (0, 1)]
    assert [len(share) for share in shares] == [256 + 88, 256]
    assert sorted(shares[0] + shares[1]) == sorted(f"{n}" for n in range(600))
