import pytest
import small_benchmarks
import small_official
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


@pytest.fixture
def mevis2(tmp_path):
    return small_official.write_mevis2(tmp_path)


@pytest.fixture
def long_rvos(tmp_path):
    return small_official.write_long_rvos(tmp_path)


@pytest.fixture
def ref_sav(tmp_path):
    return small_official.write_ref_sav(tmp_path)


@pytest.fixture
def groundmore(tmp_path):
    return small_official.write_groundmore(tmp_path)


@pytest.fixture
def reasonseg(tmp_path):
    return small_official.write_reasonseg(tmp_path)
