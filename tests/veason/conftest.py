import pytest
import small_benchmarks
from small_revos import write_revos


@pytest.fixture
def revos(tmp_path):
    """A ReVOS folder, made anew for each test that asks for it; see small_revos.py for its content."""
    return write_revos(tmp_path)


@pytest.fixture
def mevis(tmp_path):
    return small_benchmarks.write_mevis(tmp_path)


@pytest.fixture
def reasonvos(tmp_path):
    return small_benchmarks.write_reasonvos(tmp_path)


@pytest.fixture
def refytvos(tmp_path):
    return small_benchmarks.write_refytvos(tmp_path)


@pytest.fixture
def refdavis17(tmp_path):
    return small_benchmarks.write_refdavis17(tmp_path)


@pytest.fixture
def vicas(tmp_path):
    return small_benchmarks.write_vicas(tmp_path)
