"""The facade: whom its smoke test asks, where deployments are recorded, how often the cluster is asked."""

import base64
import logging
from pathlib import Path

import pytest

from longshore import client
from longshore.deployment import changes, deploy_model, lookup, rollback_service, with_storage_secret
from longshore.deployment.smoke import access_of, smoke_test
from longshore.errors import ConfigError, InvalidValue, MissingExtra
from longshore.packaging import read_card
from longshore.release import marked
from longshore.spec import (
    Endpoint,
    KServeOptions,
    ModelSource,
    SeldonOptions,
    SeldonV2Options,
    Service,
    TorchServeOptions,
)
from longshore.targets.base import Ref

STORED = ModelSource(name="m", uri="s3://models/m", format="sklearn", version="1")


@pytest.mark.parametrize(("takes", "asked"), [("rows", True), ("tensors", False)])
def test_the_example_rows_are_asked_for_where_rows_are_taken(constant_models, monkeypatch, takes, asked):
    calls = []
    monkeypatch.setattr(client, "probe", lambda *given, access: calls.append((*given, access)))
    model, access = constant_models(1), client.Access(token="t")
    endpoint = Endpoint(name="m", url="http://m", model="m", revision="r", takes=takes)
    smoke_test(model, access)(endpoint)
    assert calls == ([(endpoint, read_card(Path(model.uri)).example, None, access)] if asked else [])


def test_a_protocol_that_cannot_be_spoken_here_undoes_no_deployment(constant_models, monkeypatch, caplog):
    caplog.set_level(logging.WARNING, "longshore")

    def lack(*_, **__):
        raise MissingExtra("predicting over gRPC", "kserve", "kserve")

    monkeypatch.setattr(client, "probe", lack)
    smoke_test(constant_models(1))(Endpoint(name="m", url="http://m", model="m", revision="r"))
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


def test_a_token_for_the_smoke_test_is_taken_from_the_services_secret():
    class Cluster:
        def __init__(self, found):
            self.found = found

        def look(self, what):
            assert what == Ref("v1", "Secret", "tokens", "prod")
            return self.found

    service = Service(name="m", namespace="prod", torchserve=TorchServeOptions(token_secret="tokens"))
    text = base64.b64encode(b"# of the team\n 0123456789abcdef \nfedcba9876543210\n").decode()
    found = access_of(service, Cluster([{"data": {"a": text}}]))
    assert found.headers() == {"Authorization": "Bearer 0123456789abcdef"}
    with pytest.raises(InvalidValue, match="token_secret.*tokens.*line 1 is no token"):
        access_of(service, Cluster([{"data": {"a": base64.b64encode(b"short").decode()}}]))
    # that there is none is told by what looks for all Secrets
    assert access_of(service, Cluster([])) is None
    assert access_of(Service(name="m"), Cluster(None)) is None
    with pytest.raises(ConfigError, match="longshore rbac --secret tokens"):
        access_of(service, Cluster(None))


@pytest.mark.parametrize("given", [None, ""])
def test_a_service_is_recorded_where_it_was_recorded_before(deployed, given):
    first = deploy_model(STORED, Service(name="m"), platform="rest", tracking_uri="http://team")
    again = deploy_model(STORED, first.service, platform="rest", tracking_uri=given)
    assert again == first
    elsewhere = deploy_model(STORED, first.service, platform="rest", tracking_uri="http://other")
    assert deploy_model(STORED, Service(name="m"), platform="rest", tracking_uri=given).service.annotations == {}
    assert elsewhere.service.annotations == {"longshore.dev/registry": "http://other"}
    assert deployed.recorded_in == ["http://team", "http://team", "http://other", None]


def test_a_rollback_asks_for_each_object_that_can_bear_the_release_once(deployed):
    first = deploy_model(STORED, Service(name="m"), platform="rest")
    deployed.asked.clear()
    (deployed.manifest,) = marked([{"metadata": {}}], first, first)
    assert rollback_service("m", platform="rest", namespace="default") == first
    # once to find what to go back to, once before it is deployed
    assert len(deployed.asked) == 2 * len(set(deployed.asked)) == 4


@pytest.fixture
def deployed(monkeypatch):
    """A cluster that carries nothing out: what it is asked, and where the facade has deployments recorded."""

    class Deployed:
        def __init__(self):
            self.asked, self.recorded_in, self.manifest = [], [], None

        def get(self, ref):
            self.asked.append(ref)
            return self.manifest

    found = Deployed()
    monkeypatch.setattr(lookup, "runtime_of", lambda *_, **__: found)
    monkeypatch.setattr(changes, "runtime_of", lambda *_, **__: found)
    monkeypatch.setattr(changes, "_recorder", lambda _, uri: found.recorded_in.append(uri))
    monkeypatch.setattr(changes, "smoke_test", lambda *_, **__: None)
    monkeypatch.setattr(changes, "deploy", lambda release, **_: release)
    return found
