"""Workers are called together, hold the right environment, and fail together with the rank named."""

import os
import socket
import sys
import time

import pytest
import ray
from ray import cloudpickle

from verl.single_controller import WorkerError, WorkerGroup, WorkerSpec

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers cannot import a test module


class Echo:
    def __init__(self, offset):
        self.offset = offset
        self.rank = int(os.environ["RANK"])

    def add(self, value):
        return self.rank, self.offset + value

    def environment(self):
        return {
            name: os.environ[name]
            for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS", "EXTRA")
        } | {"interface": os.environ["GLOO_SOCKET_IFNAME"]}

    def fail_on(self, rank):
        if self.rank == rank:
            raise ValueError("frame 7 of video/3 is missing")
        time.sleep(600)

    def exit_on(self, rank):
        if self.rank == rank:
            raise SystemExit(3)
        time.sleep(600)

    def die_on(self, rank):
        if self.rank == rank:
            os._exit(3)
        time.sleep(600)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def spec(**options):
    return WorkerSpec(count=2, device="cpu", threads=1, env={"EXTRA": "1"}, **options)


def test_calls_reach_every_rank_in_order_with_its_environment():
    with WorkerGroup(Echo, spec(), 10) as group:
        assert group.call("add", 1) == [(0, 11), (1, 11)]
        assert group.scatter("add", [1, 2]) == [(0, 11), (1, 12)]
        first, second = group.call("environment")
        assert (first["RANK"], second["RANK"]) == ("0", "1")
        assert first["interface"] in [name for _, name in socket.if_nameindex()]
        assert first["WORLD_SIZE"] == "2" and first["LOCAL_RANK"] == second["LOCAL_RANK"] == "0"
        assert first["MASTER_PORT"] == second["MASTER_PORT"] and first["OMP_NUM_THREADS"] == first["EXTRA"] == "1"
        assert 0 < group.take_transferred_bytes() < 4000 and group.take_transferred_bytes() == 0
        with pytest.raises(ValueError, match="3 arguments for 2 workers"):
            group.scatter("add", [1, 2, 3])


def test_an_error_names_the_rank_and_does_not_wait_for_the_others():
    group = WorkerGroup(Echo, spec(), 0)
    start = time.monotonic()
    with pytest.raises(
        WorkerError, match="rank 1 failed in `fail_on`: ValueError: frame 7 of video/3 is missing"
    ) as caught:
        group.call("fail_on", 1)
    assert time.monotonic() - start < 120  # the other rank sleeps for longer
    assert "in fail_on" in caught.value.trace  # a builtin error may say nothing of its place


def test_a_death_names_the_rank():
    group = WorkerGroup(Echo, spec(), 0)
    with pytest.raises(WorkerError, match="rank 1 died in `die_on`"):
        group.call("die_on", 1)


def test_what_a_worker_writes_goes_to_its_file_and_the_error_of_a_death_ends_with_it(tmp_path):
    class Talks(Echo):
        def talk(self, rank):
            print(f"rank {self.rank} has printed")
            os.write(2, b"a line of C\n")
            if self.rank == rank:
                os._exit(3)

    with WorkerGroup(Talks, spec(run=str(tmp_path)), 0) as group:
        group.call("talk", None)
    for rank in range(2):
        written = (tmp_path / f"logs/rank_{rank}.log").read_text()
        assert f"rank {rank} has printed" in written and "a line of C" in written
    with (
        pytest.raises(WorkerError, match="rank 1 died in `talk`") as caught,
        WorkerGroup(Talks, spec(run=str(tmp_path)), 0) as group,
    ):
        group.call("talk", 1)
    assert caught.value.trace.startswith(f"{tmp_path}/logs/rank_1.log ends with:\n")
    assert "rank 1 has printed\na line of C\n" in caught.value.trace  # Ray may add a line of its own


def test_counts_of_the_workers_are_read_while_a_call_is_under_way(tmp_path):
    """Both workers go on once the driver has seen the sum of their counts: in a file, since a worker is busy."""

    class Counts(Echo):
        done = 0

        def progress(self):
            return {"generation": (self.done, 3)}

        def work(self):
            for self.done in range(1, 4):
                while not (tmp_path / str(2 * self.done)).exists():
                    time.sleep(0.02)

    seen = []

    def see(progress):
        seen.extend([progress["generation"]] if progress else [])
        for done, _ in seen[-1:]:
            (tmp_path / str(done)).touch()

    with WorkerGroup(Counts, spec(timeout=120), 0) as group:
        group.on_progress = see
        group.call("work")
    assert seen == sorted(seen) and {2, 4, 6} <= {done for done, _ in seen} <= {*range(7)}
    assert {total for _, total in seen} <= {3, 6} and seen[-1] == (6, 6)


def test_a_hang_ends_the_run_with_the_stacks_of_the_hung_ranks(tmp_path):
    group = WorkerGroup(Echo, spec(timeout=3.0, run=str(tmp_path)), 0)
    assert group.call("add", 1) == [(0, 1), (1, 1)]
    with pytest.raises(WorkerError, match=r"`die_on` did not return within 3 s on ranks \[0, 1\]") as caught:
        group.call("die_on", 5)
    assert f"{tmp_path}/logs/rank_1.log ends with:\n" in caught.value.trace
    assert caught.value.trace.count("in die_on") == 2


def test_a_system_exit_in_a_worker_is_told():
    group = WorkerGroup(Echo, spec(), 0)
    with pytest.raises(WorkerError, match="rank 1 failed in `exit_on`: RuntimeError: SystemExit: 3"):
        group.call("exit_on", 1)


def test_too_few_resources_are_named_at_once():
    start = time.monotonic()
    with pytest.raises(WorkerError, match=r"1 hosts with {'CPU': 3.0} each are asked for; the cluster has .*'CPU': 2"):
        WorkerGroup(Echo, WorkerSpec(count=3, device="cpu"), 0)
    with pytest.raises(WorkerError, match=r"2 hosts with {'CPU': 1.0} each are asked for"):
        WorkerGroup(Echo, WorkerSpec(count=2, nodes=2, device="cpu"), 0)
    assert time.monotonic() - start < 60  # the cluster is not waited for
