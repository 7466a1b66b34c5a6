import pytest
from small_revos import write_revos


@pytest.fixture
def revos(tmp_path):
    """A ReVOS folder, made anew for each test that asks for it; see small_revos.py for what it holds."""
    return write_revos(tmp_path)
