import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import wait_until
from tests.wordmill.training.tiny import make_job
from wordmill.recipe.frameworks import PACKAGES, environment
from wordmill.store.artifacts import ROOT
from wordmill.store.storage import hash_file
from wordmill.training.job import write_job
from wordmill.training.worker import at_work


def test_a_worker_leaves_its_error_where_the_stage_looks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too wide"), at_work(tmp_path, 3):
        raise ValueError("picture 7 is too wide")
    assert (tmp_path / "failure.3.txt").read_text() == "ValueError in process 3: picture 7 is too wide"


def test_a_worker_notes_its_process_while_it_works(tmp_path: Path) -> None:
    with at_work(tmp_path, 3):
        assert (tmp_path / "worker.3").read_text() == str(os.getpid())
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has PR_SET_PDEATHSIG")
def test_a_worker_in_a_session_of_its_own_dies_with_its_parent() -> None:
    child = (
        "import os, time; from wordmill.training.worker import die_with_parent; die_with_parent(); "
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], start_new_session=True)"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    wait_until(lambda: not is_alive(worker))


NEEDED_ELSEWHERE = {"boto3", "botocore", "wordmill.synth.renderer"}


@pytest.mark.parametrize("framework", PACKAGES)
def test_a_worker_imports_neither_the_stores_client_nor_the_renderer(framework: str, tmp_path: Path) -> None:
    """Its shards lie in the cache, as the stage leaves them or the first process of a machine that reads them."""
    job = make_job(tmp_path)
    for shard in (tmp_path / "train.shard", tmp_path / "val.shard"):
        digest = hash_file(shard)
        cached = tmp_path / "cache" / "objects" / digest[:2] / digest
        cached.parent.mkdir(parents=True, exist_ok=True)
        shard.rename(cached)
    write_job(tmp_path / "job.json", job)
    code = (
        f"import sys; from pathlib import Path; import wordmill.training.{PACKAGES[framework]}.train\n"
        "from wordmill.text.decoding import codec_of; from wordmill.training.context import make_context\n"
        "from wordmill.training.job import read_job; from wordmill.training.stream import training_stream\n"
        "job = read_job(Path(sys.argv[1]))\n"
        "context = make_context(job, 0, codec_of(job.model, job.data), 25)\n"
        "print(len(list(training_stream(context))), sorted(set(sys.argv[2:]) & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "job.json"), *NEEDED_ELSEWHERE]
    told = {"WORDMILL_BUCKET": "none", "WORDMILL_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    variables = os.environ | environment(framework, "cpu") | told
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "4 []"


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended but was not collected does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
