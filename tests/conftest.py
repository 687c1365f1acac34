"""Rules for all tests."""

import os
from collections.abc import Iterator

import pytest

# several threads for each of several processes only wait for each other on a small machine
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="session")
def nobodys_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or changes the registry and the servers of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGSHORE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """In CI every part is there: a skipped test is a failure, with the sentence that says what is missing."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.longrepr = f"skipped in CI: {why}"
