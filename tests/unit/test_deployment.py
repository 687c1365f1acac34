"""The facade's smoke test: whom it asks, and whom it cannot."""

import logging
from pathlib import Path

import pytest

from longshore import client
from longshore.deployment import _smoke_test
from longshore.packaging import read_card
from longshore.spec import Endpoint


@pytest.mark.parametrize(
    ("protocols", "asked"), [(("v1", "v2"), True), (("v1", "v2", "grpc-v2"), True), (("grpc-v2",), False)]
)
def test_the_example_rows_are_asked_for_where_v1_is_spoken(constant_models, monkeypatch, caplog, protocols, asked):
    caplog.set_level(logging.INFO, "longshore")
    calls = []
    monkeypatch.setattr(client, "probe", lambda endpoint, rows, classes: calls.append((endpoint, rows, classes)))
    model = constant_models(1)
    endpoint = Endpoint(name="m", url="http://m", model="m", revision="r", protocols=protocols)
    _smoke_test(model)(endpoint)
    assert calls == ([(endpoint, read_card(Path(model.uri)).example, None)] if asked else [])
    assert ("speaks grpc-v2 only: it is served without a smoke test" in caplog.text) is not asked
