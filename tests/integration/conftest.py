"""Real servers with small models; whatever a test starts is ended after it."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of its own; servers that live in it are ended."""
    from longshore.local import list_servers, stop

    place = tmp_path / "home"
    monkeypatch.setenv("LONGSHORE_HOME", str(place))
    monkeypatch.delenv("LONGSHORE_RUN", raising=False)
    yield place
    for name in sorted({server.name for server in list_servers()}):
        stop(name)
