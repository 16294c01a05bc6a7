"""What runs on each node: its place, the lease, and what it leaves in the store when it fails or ends."""

import dataclasses
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from components.train import attempts, workers
from components.train.gang import node
from components.train.gang.work import Work, job_key, read_work, renew_lease, write_work
from components.train.launch import Node, launch
from tests.components.train.test_stage import combined_manifest
from tests.wordmill.training.test_worker import is_alive
from tests.wordmill.training.tiny import DATA, MODEL, TRAIN
from wordmill.store.artifacts import read_manifest, to_document
from wordmill.store.storage import Object, Store

WORK = Work(
    key="k", code="c", resume="r", other_code="", nodes=4, processes=8, device="npu", data=DATA, model=MODEL,
    train=TRAIN, shards={"facts": {"datasets": {}}}, start=None, recipe="tiny", run_tag="tag",
    mlflow_run="",
)  # fmt: skip
ON_MINDSPORE = dataclasses.replace(WORK, train=dataclasses.replace(TRAIN, framework="mindspore"))
OWN = {"POD_IP": "10.1.0.9"}
VOLCANO = OWN | {"VC_NODE_HOSTS": "j-node-0.j,j-node-1.j,j-node-2.j,j-node-3.j", "VC_NODE_NUM": "4"}
# As MindCluster's operator sets them: RANK is a node's number and WORLD_SIZE counts devices.
TORCH = OWN | {"MASTER_ADDR": "172.20.0.7", "MASTER_PORT": "2222", "WORLD_SIZE": "32", "LOCAL_WORLD_SIZE": "8",
               "LOCAL_RANK": "0,1,2,3,4,5,6,7"}  # fmt: skip
MINDSPORE = OWN | {"MS_SCHED_HOST": "172.20.0.7", "MS_SCHED_PORT": "2222", "MS_WORKER_NUM": "32",
                   "MS_LOCAL_WORKER": "8", "MS_SERVER_NUM": "0"}  # fmt: skip


@pytest.mark.parametrize(
    ("variables", "work", "rank", "master"),
    [
        (VOLCANO | {"VC_TASK_INDEX": "0"}, WORK, 0, "10.1.0.9"),
        (VOLCANO | {"VC_TASK_INDEX": "3"}, ON_MINDSPORE, 3, "j-node-0.j"),
        (TORCH | {"RANK": "0"}, WORK, 0, "10.1.0.9"),
        (TORCH | {"RANK": "2"}, WORK, 2, "172.20.0.7"),
        (MINDSPORE | {"MS_NODE_RANK": "0", "MS_ROLE": "MS_SCHED"}, ON_MINDSPORE, 0, "10.1.0.9"),
        (MINDSPORE | {"MS_NODE_RANK": "1", "MS_ROLE": "MS_WORKER"}, ON_MINDSPORE, 1, "172.20.0.7"),
    ],
)
def test_a_node_learns_its_place(variables: dict[str, str], work: Work, rank: int, master: str) -> None:
    assert node.find_node(variables, work) == Node(rank=rank, nodes=4, master=master, port=2222)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (OWN, "neither VC_TASK_INDEX and VC_NODE_HOSTS are set .* nor RANK and MASTER_ADDR"),
        (MINDSPORE | {"MS_NODE_RANK": "0"}, "this node's place is not known"),  # PyTorch is told by other names
        (TORCH | {"RANK": "4"}, "this is node 4 of 4, the job is made for 4 of 8 processes"),
        (TORCH | {"RANK": "0", "WORLD_SIZE": "24"}, "this is node 0 of 3"),
    ],
)
def test_a_place_that_cannot_be_is_refused(variables: dict[str, str], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        node.find_node(variables, WORK)


def test_torchrun_and_msrun_are_told_the_node() -> None:
    third = Node(rank=2, nodes=4, master="172.20.0.7", port=2222)
    torchrun = launch("pytorch", "npu", 8, Path("/x/job.json"), third)
    expected = {"--nnodes=4", "--node-rank=2", "--nproc-per-node=8", "--master-addr=172.20.0.7", "--master-port=2222"}
    assert expected <= set(torchrun)
    msrun = launch("mindspore", "npu", 8, Path("/x/job.json"), third)
    expected = {"--worker_num=32", "--local_worker_num=8", "--node_rank=2", "--master_addr=172.20.0.7",
                "--master_port=2222", "--join=True", "--cluster_time_out=1200"}  # fmt: skip
    assert expected <= set(msrun)


def test_a_name_is_waited_for_and_given_up_in_time() -> None:
    node.wait_for_name("localhost", 0.0)
    with pytest.raises(RuntimeError, match=r"the first node, no-such-host.invalid, has had no address for 0 s"):
        node.wait_for_name("no-such-host.invalid", 0.0)


def test_a_name_that_appears_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([OSError("no address yet"), []])

    def resolve(*_: object) -> Any:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr("socket.getaddrinfo", resolve)
    monkeypatch.setattr("time.sleep", lambda _: None)
    node.wait_for_name("j-node-0.j", 60.0)
    assert list(answers) == []


def test_what_the_nodes_are_told_is_read_back_and_missed_by_name(store: Store) -> None:
    write_work(store, WORK)
    assert read_work(store, "k") == WORK
    begun = dataclasses.replace(WORK, key="b", start=Object(name="first.safetensors", sha256="f" * 64, bytes=7))
    write_work(store, begun)
    assert read_work(store, "b") == begun
    with pytest.raises(RuntimeError, match=r"jobs/other/job.json is not in bucket"):
        read_work(store, "other")


def test_a_lease_runs_out_when_nobody_renews_it_whatever_the_clocks_say(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(node.time, "monotonic", lambda: now[0])
    lease = node.Lease(store, "k")
    for moment in range(1000, 3000, 100):  # renewed by a stage whose clock stands at any time
        now[0] = float(moment)
        store.put_json(job_key("k", "lease.json"), {"renewed": -moment})
        lease.check()
    now[0] = 2900.0 + 600.0
    lease.check()
    now[0] += 31.0
    with pytest.raises(RuntimeError, match=r"jobs/k/lease.json has not been renewed for 600 s: nobody waits"):
        lease.check()


def test_a_store_that_is_away_is_no_stage_that_is_gone_until_the_lease_ends(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: str) -> None:
        raise RuntimeError("cannot read")

    now = [0.0]
    monkeypatch.setattr(node.time, "monotonic", lambda: now[0])
    renew_lease(store, "k")
    lease = node.Lease(store, "k")
    lease.check()
    monkeypatch.setattr(store, "get_json", away)
    for moment in (120.0, 500.0):
        now[0] = moment
        lease.check()
    now[0] = 601.0
    with pytest.raises(RuntimeError, match="nobody waits for this training"):
        lease.check()


@pytest.fixture
def told(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    """A job of two nodes of one process, of which this is the second."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shards = to_document(read_manifest(combined_manifest(store, tmp_path)))
    work = dataclasses.replace(WORK, nodes=2, processes=1, device="cpu", shards=shards)
    write_work(store, work)
    renew_lease(store, "k")
    for name, value in {"VC_TASK_INDEX": "1", "VC_NODE_HOSTS": "localhost,b", "POD_IP": "10.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(workers, "LOOK_EVERY_S", 0.05)
    return work


def fake(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a Python program, given the job's folder, stand for torchrun."""
    monkeypatch.setattr(workers, "launch", lambda *args: [sys.executable, "-c", code, str(args[3].parent)])


def test_a_node_that_fails_leaves_its_reason_and_its_log(
    told: Work, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told_by_worker = "open(sys.argv[1] + '/failure.3.txt', 'w').write('ValueError in process 3: x')"
    fake(f"import sys; print('last words'); {told_by_worker}; sys.exit(5)", monkeypatch)
    started = time.time()
    with pytest.raises(SystemExit) as end:
        node.main(told.key)
    assert end.value.code == 1
    failure = store.get_json(job_key("k", "failure.1.json"))
    assert failure["error"].startswith("training failed with code 5: ValueError in process 3: x\n")
    assert started <= failure["time"] <= time.time()
    assert b"last words" in (store.get_bytes(job_key("k", "log.1.txt")) or b"")
    assert store.get_json(job_key("k", "result.json")) is None
    assert "error: node 1: training failed with code 5: ValueError in process 3: x" in capsys.readouterr().out


def test_the_second_node_ends_well_without_an_outcome_of_its_own(
    told: Work, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = "print({name for name in os.environ if name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MS_ROLE')})"
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MS_ROLE"):
        monkeypatch.setenv(name, "0,1")
    fake(f"import os; {seen}", monkeypatch)
    node.main(told.key)
    assert b"set()" in (store.get_bytes(job_key("k", "log.1.txt")) or b"")
    assert store.get_json(job_key("k", "failure.1.json")) is None
    assert store.get_json(job_key("k", "result.json")) is None


def test_a_node_whose_stage_is_gone_ends_its_processes(
    told: Work, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted, check = tmp_path / "worker", node.Lease.check

    def check_once_begun(lease: node.Lease) -> None:
        if noted.exists() and noted.read_text():
            monkeypatch.setattr(node, "LEASE_S", 0.0)
        check(lease)

    monkeypatch.setattr(node.Lease, "check", check_once_begun)
    monkeypatch.setattr(node, "LOOK_EVERY_S", 0.0)
    fake(f"import os, time; open({str(noted)!r}, 'w').write(str(os.getpid())); time.sleep(600)", monkeypatch)
    with pytest.raises(SystemExit):
        node.main(told.key)
    assert "nobody waits for this training" in store.get_json(job_key("k", "failure.1.json"))["error"]
    assert not is_alive(int(noted.read_text()))


def test_a_node_without_a_place_says_so_in_the_store(told: Work, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VC_NODE_HOSTS")
    with pytest.raises(SystemExit):
        node.main(told.key)
    assert "place is not known" in store.get_json(job_key("k", "failure.unplaced.json"))["error"]


def test_a_node_that_is_stopped_while_it_waits_says_that_it_was_stopped(
    told: Work, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "wait_for_name", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as end:
        node.main(told.key)
    failure = store.get_json(job_key("k", "failure.1.json"))
    assert (failure["error"], failure["stopped"]) == ("training was stopped by SIGTERM", True)
    assert end.value.code == 75


@pytest.mark.parametrize(("told_by", "code"), [("", 75), ("RuntimeError", 75), ("ValueError", 1)])
def test_a_node_whose_processes_were_lost_asks_for_a_new_start_of_all(
    told_by: str, code: int, told: Work, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = f"open(sys.argv[1] + '/failure.1.txt', 'w').write('{told_by} in process 1: x')" if told_by else "0"
    fake(f"import sys; {tell}; sys.exit(9)", monkeypatch)
    with pytest.raises(SystemExit) as end:
        node.main(told.key)
    assert (end.value.code, store.get_json(job_key("k", "failure.1.json"))["stopped"]) == (code, code == 75)


def test_the_first_node_stops_what_no_longer_gets_on(store: Store) -> None:
    for _ in range(1 + attempts.RESTARTS):
        node.count_starts(store, "k", 120)
    with pytest.raises(RuntimeError, match="training was started 4 times after step 120 and reached no other checkpoi"):
        node.count_starts(store, "k", 120)
    node.count_starts(store, "k", 240)
    assert store.get_json(job_key("k", "starts.json")) == {"step": 240, "starts": 1}


def test_the_first_node_whose_processes_stop_without_an_outcome_was_stopped_by_another(
    told: Work, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VC_TASK_INDEX", "0")
    fake("pass", monkeypatch)
    with pytest.raises(SystemExit) as end:
        node.main(told.key)
    failure = store.get_json(job_key("k", "failure.0.json"))
    assert failure["error"] == "training was stopped on another node: it begins from the start when it is run again"
    assert (end.value.code, failure["stopped"]) == (75, True)
    assert store.get_json(job_key("k", "starts.json")) == {"step": 0, "starts": 1}
