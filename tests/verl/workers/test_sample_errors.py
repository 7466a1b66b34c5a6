"""Data that raises anything or hangs ends in an error that names the sample."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.verl.workers.toy_task import ToyData
from verl.protocol import GroupRequest
from verl.workers.sample_errors import load_sample, wait_for_sample

REQUEST = GroupRequest(uid=5, index=3, seed=0)


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), MemoryError(), ValueError("no frames")], ids=lambda error: repr(error)
)
def test_whatever_the_data_raises_names_the_sample(error: BaseException) -> None:
    def load() -> None:
        raise error

    with pytest.raises(RuntimeError, match=rf"toy/3: the sample could not be loaded: {type(error).__name__}"):
        load_sample(ToyData(), REQUEST, load)


def test_an_error_that_names_the_sample_comes_as_it_is() -> None:
    def load() -> None:
        raise OSError("toy/3: frame 7 is cut short")

    with pytest.raises(OSError, match=r"^toy/3: frame 7 is cut short$"):
        load_sample(ToyData(), REQUEST, load)


def test_data_that_hangs_is_named_within_its_time_with_stacks(capfd: pytest.CaptureFixture[str]) -> None:
    release = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        start = time.monotonic()
        with pytest.raises(TimeoutError, match=r"toy/3: the sample was not loaded within trainer\.phase_timeout=0 s"):
            wait_for_sample(threads.submit(release.wait, 300), ToyData(), REQUEST, 0.3)
        assert time.monotonic() - start < 60
        release.set()
    assert "Thread 0x" in capfd.readouterr().err
    own = ThreadPoolExecutor(1).submit(lambda: (_ for _ in ()).throw(TimeoutError("the server's own")))
    with pytest.raises(TimeoutError, match=r"^the server's own$"):
        wait_for_sample(own, ToyData(), REQUEST, 10)
