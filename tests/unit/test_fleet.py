"""Many services at once: what is refused, and what the command makes of a file."""

import json

import pytest
import yaml

from longshore.cli.app import run
from longshore.errors import ConfigError, InvalidValue
from longshore.fleet import render_models
from longshore.spec import ModelSource, Router, SeldonV2Options, Service

MODEL = ModelSource(uri="s3://models/iris", format="sklearn", name="iris")


def test_what_cannot_be_deployed_together_is_refused():
    one = Service(name="iris", namespace="models")
    with pytest.raises(InvalidValue, match="two services of the fleet have this name"):
        render_models([(MODEL, one), (MODEL, one)])
    routed = Service(name="a", router=Router(kind="nginx"))
    for platform, service in (("kserve", one), ("rest", one), ("seldon-v2", routed)):
        with pytest.raises(ConfigError, match="deploy its services one by one"):
            render_models([(MODEL, service)], platform=platform)
    with pytest.raises(InvalidValue, match=r"Service\.port"):
        render_models([(MODEL, one), (MODEL, Service(name="other", port=80))])


def test_objects_bear_their_release():
    experiment, model = render_models([(MODEL, Service(name="iris"))], tracking_uri="http://registry")
    noted = json.loads(experiment["metadata"]["annotations"]["longshore.dev/release"])
    assert noted["model"]["uri"] == MODEL.uri
    assert experiment["metadata"]["annotations"]["longshore.dev/registry"] == "http://registry"
    assert model["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "longshore"


def fleet_file(tmp_path, content):
    path = tmp_path / "fleet.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


def test_the_command_writes_the_objects_of_a_file(tmp_path, capsys):
    content = {
        "defaults": {"namespace": "models", "seldon_v2": {"storage_secret": "store"}, "model": {"format": "sklearn"}},
        "services": [
            {"name": "iris", "model": {"uri": "s3://models/iris"}},
            {"name": "wine", "model": {"uri": "s3://models/wine", "format": "xgboost"}, "seldon_v2": {"server": "big"}},
        ],
    }
    assert run(["fleet", fleet_file(tmp_path, content), "--dry-run"]) == 0
    made = [m for m in yaml.safe_load_all(capsys.readouterr().out) if m["kind"] == "Model"]
    assert [m["metadata"]["namespace"] for m in made] == ["models", "models"]
    assert [m["spec"]["requirements"] for m in made] == [["sklearn"], ["xgboost"]]
    assert [m["spec"].get("server") for m in made] == [None, "big"]
    assert {m["spec"]["secretName"] for m in made} == {"store"}


def test_a_list_is_enough(tmp_path, capsys):
    content = [{"name": "iris", "model": {"uri": "s3://models/iris", "format": "sklearn"}}]
    assert run(["fleet", fleet_file(tmp_path, content), "-n", "team", "--dry-run"]) == 0
    assert {m["metadata"]["namespace"] for m in yaml.safe_load_all(capsys.readouterr().out)} == {"team"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("services: []", "has no services"),
        ("a: [", "is no YAML"),
        ("- 1", "service 1: use a mapping"),
        ("- name: iris", "service 1: use a mapping with a name, a model"),
        ("- {name: iris, model: {uri: s3://a/b}}", "service 1 (iris): ModelSource.format"),
        ("- {name: iris, model: {uri: s3://a/b, format: sklearn}, replica: 2}", "Service.replica"),
    ],
)
def test_a_file_that_cannot_be_understood_says_where(tmp_path, capsys, content, words):
    assert run(["fleet", fleet_file(tmp_path, content), "--dry-run"]) == 2
    assert words in capsys.readouterr().err


def test_options_are_checked_as_anywhere(tmp_path, capsys):
    content = [{"name": "iris", "model": {"uri": "/models/iris", "format": "sklearn"}}]
    assert run(["fleet", fleet_file(tmp_path, content), "--dry-run"]) == 2
    assert "ModelSource.uri" in capsys.readouterr().err
    assert SeldonV2Options()
