"""Shards are made by any number of processes, stored one by one, and found again after a kill."""

import multiprocessing
import os
import random
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components import keys
from components.shard import pieces as pieces_module
from components.shard import stage
from components.shard.packing import Packed, Rules, Task, pack_shard
from components.shard.pieces import pieces
from tests.components.shard.shard_sets import drawn, fetched, one, records, section, shard
from tests.waiting import wait_until
from wordmill.recipe.catalogue import Entry
from wordmill.recipe.parsing import from_json
from wordmill.recipe.sections import Data
from wordmill.store.artifacts import Manifest, read_manifest
from wordmill.store.storage import Store
from wordmill.text.charset import load_charset

ROOT = Path(__file__).resolve().parents[3]
SIZE = 40  # samples per shard here
STAGE = f"""
import sys, threading
from components.shard import pieces, stage
make, most = pieces._piece, int(sys.argv[4])
def make_some(*told):
    if told[-1].start >= most * {SIZE}:
        threading.Event().wait()
    return make(*told)
if __name__ == "__main__":
    pieces._piece = make_some
    stage.shard_samples = lambda shape: {SIZE}
    stage.run(data=sys.argv[1], sources=sys.argv[2], run_tag="r1", output=sys.argv[3])
"""


def tasks(root: Path, count: int) -> list[Task]:
    rules = Rules(data=from_json(Data, section()), charset=load_charset("lower36"), training=True)
    return [
        Task(entry=Entry(**drawn(count)), root=root, start=start, stop=min(start + SIZE, count),
             path=Path(f"{start // SIZE:05}.lmdb"), rules=rules)
        for start in range(0, count, SIZE)
    ]  # fmt: skip


def made(
    store: Store, inputs: dict[str, Any], work: list[Task], cores: int, patch: pytest.MonkeyPatch
) -> list[Manifest]:
    patch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    return list(pieces(store, "words", inputs, keys.of_shard("synth"), work))


def test_any_number_of_workers_gives_the_same_bytes(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tasks(tmp_path, 90)
    alone, both = (made(store, {"cores": cores}, work, cores, monkeypatch) for cores in (1, 2))
    assert [piece.facts["samples"] for piece in alone] == [40, 40, 10]
    assert [piece.objects for piece in both] == [piece.objects for piece in alone]
    assert [piece.facts for piece in both] == [piece.facts for piece in alone]


class Counted:
    """Packs, noting what; fails at some task."""

    def __init__(self, fails_at: int) -> None:
        self.starts: list[int] = []
        self.fails_at = fails_at

    def __call__(self, task: Task) -> Packed:
        if task.start == self.fails_at:
            raise RuntimeError("power cut")
        self.starts.append(task.start)
        return pack_shard(task)


def test_work_goes_on_behind_the_shards_that_are_stored(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, first, second = tasks(tmp_path, 90), Counted(fails_at=80), Counted(fails_at=-1)
    monkeypatch.setattr(pieces_module, "pack_shard", first)
    with pytest.raises(RuntimeError, match="power cut"):
        made(store, {}, work, 1, monkeypatch)
    assert sorted(first.starts) == [0, 40]
    monkeypatch.setattr(pieces_module, "pack_shard", second)
    assert [piece.inputs["samples"] for piece in made(store, {}, work, 1, monkeypatch)] == [[0, 40], [40, 80], [80, 90]]
    assert second.starts == [80]


def test_work_ends_once_too_much_is_unusable(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counted = Counted(fails_at=-1)
    monkeypatch.setattr(pieces_module, "pack_shard", counted)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr(stage, "shard_samples", lambda shape: 2)
    (tmp_path / "words").mkdir()
    with pytest.raises(SystemExit):
        shard(tmp_path, {"words": records(tmp_path / "words", [(b"x", b"bad")] * 60)}, section())
    assert "): 32 of 60 samples are unusable" in capsys.readouterr().out
    assert 16 <= len(counted.starts) < 25  # of 30: the others in hand are finished


def stored(store: Store) -> list[str]:
    """The manifests of single shards."""
    return [key for key in store.keys("manifests/shard/") if "dataset" in store.get_json(key)["inputs"]]


def start(sources: Path, data: str, output: Path, most: int) -> "subprocess.Popen[str]":
    """Start a stage that makes so many shards of a data set and waits with the others for its end."""
    command = [sys.executable, "-c", STAGE, data, str(sources), str(output), str(most)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3, 4))])
def test_a_killed_stage_continues_to_the_same_result(
    seed: int, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, data, count = random.Random(seed), section(train=["words"]), 9 * SIZE
    source = {"words": drawn(count)}
    sources = fetched(tmp_path, source)
    killed, enough = start(sources, data, tmp_path / "killed", most=5), rng.randint(1, 3)
    wait_until(lambda: len(stored(store)) >= enough or killed.poll() is not None)
    killed.kill()
    killed.communicate()
    before = stored(store)
    assert enough <= len(before) <= 5
    again = start(sources, data, tmp_path / "again", most=9)
    out = again.communicate()[0]
    assert again.returncode == 0
    assert out.count("found finished by digest") == len(before)
    assert len(stored(store)) == 9

    monkeypatch.setenv("WORDMILL_BUCKET", f"bucket-{secrets.token_hex(6)}")
    monkeypatch.setenv("WORDMILL_CACHE", str(tmp_path / "other cache"))
    other = Store.from_environment()
    other.make_bucket()
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr(stage, "shard_samples", lambda shape: SIZE)
    manifests = [one(store, read_manifest(tmp_path / "again")), one(other, shard(tmp_path, source, data))]
    assert manifests[0].objects == manifests[1].objects
    assert manifests[0].facts == manifests[1].facts
    assert manifests[0].key == manifests[1].key


def test_workers_end_when_their_parent_is_killed() -> None:
    """A killed parent cannot tell its workers, so each watches for its end."""
    script = (
        "import multiprocessing, os, time\n"
        "from components.shard.pieces import _end_with_parent\n"
        "def work():\n"
        "    _end_with_parent(); print(os.getpid(), flush=True); time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.get_context('fork').Process(target=work).start(); time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    wait_until(lambda: not Path(f"/proc/{worker}").exists())
    parent.stdout.close()


def test_this_process_has_no_workers_left() -> None:
    assert multiprocessing.active_children() == []
