import sys

import pytest


@pytest.fixture(autouse=True, scope="module")
def no_process_group_is_left():
    """vLLM in this process makes a process group and keeps it; the next file's tests want their own."""
    yield
    if "torch" not in sys.modules:
        return
    import torch.distributed as dist

    if not dist.is_initialized():
        return
    if "vllm" in sys.modules:
        from vllm.distributed.parallel_state import destroy_distributed_environment, destroy_model_parallel

        destroy_model_parallel()
        destroy_distributed_environment()
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Of several processes, each takes the next file: those that may take longest come first, so that all processes end
    at about the same time. A file's longest time limit (pytest.mark.timeout) stands for how long it takes.
    """
    if not hasattr(config, "workerinput"):  # one process: the order of the folders
        return
    limits = {}
    for item in items:
        marker = item.get_closest_marker("timeout")
        limits[item.path] = max(limits.get(item.path, 0), marker.args[0] if marker else 0)
    items.sort(key=lambda item: -limits[item.path])


@pytest.fixture(scope="module")
def chromium():
    """One browser for the tests of a file. Not of a session: asyncio.run fails while Playwright is in use."""
    from tests.eval.browser import launch_chromium

    with launch_chromium() as browser:
        yield browser


def pytest_terminal_summary(terminalreporter):
    """The table of `make soak`: what each test of a fault has measured."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    rows = [f"{report.outcome:6} {value}" for report in reports for _, value in report.user_properties]
    if rows:
        terminalreporter.write_sep("-", "reliability")
        for row in rows:
            terminalreporter.write_line(row)
