"""The facade's smoke test: whom it asks, and whom it cannot."""

import logging
from pathlib import Path

import pytest

from longshore import client
from longshore.deployment import _smoke_test, with_storage_secret
from longshore.errors import InvalidValue, MissingExtra
from longshore.packaging import read_card
from longshore.spec import Endpoint, KServeOptions, SeldonOptions, SeldonV2Options, Service


@pytest.mark.parametrize(("takes", "asked"), [("rows", True), ("tensors", False)])
def test_the_example_rows_are_asked_for_where_rows_are_taken(constant_models, monkeypatch, takes, asked):
    calls = []
    monkeypatch.setattr(client, "probe", lambda endpoint, rows, classes: calls.append((endpoint, rows, classes)))
    model = constant_models(1)
    endpoint = Endpoint(name="m", url="http://m", model="m", revision="r", takes=takes)
    _smoke_test(model)(endpoint)
    assert calls == ([(endpoint, read_card(Path(model.uri)).example, None)] if asked else [])


def test_a_protocol_that_cannot_be_spoken_here_undoes_no_deployment(constant_models, monkeypatch, caplog):
    caplog.set_level(logging.WARNING, "longshore")

    def lack(*_):
        raise MissingExtra("predicting over gRPC", "kserve", "kserve")

    monkeypatch.setattr(client, "probe", lack)
    _smoke_test(constant_models(1))(Endpoint(name="m", url="http://m", model="m", revision="r"))
    assert "http://m is served without a smoke test" in caplog.text
    assert "pip install 'longshore[kserve]'" in caplog.text


def test_a_secret_opens_the_storage_to_platforms_that_fetch_models_themselves():
    service = Service(name="iris", seldon_v2=SeldonV2Options(server="mine"))
    assert with_storage_secret(service, "kserve", "store").kserve == KServeOptions(storage_secret="store")
    told = with_storage_secret(service, "seldon-v2", "store").seldon_v2
    assert told == SeldonV2Options(server="mine", storage_secret="store")
    assert with_storage_secret(service, "seldon", "store").seldon == SeldonOptions(storage_secret="store")
    assert with_storage_secret(service, "rest", None) == service
    with pytest.raises(InvalidValue, match="on the platform rest, name it in secrets"):
        with_storage_secret(service, "rest", "store")
