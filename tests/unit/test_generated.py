"""What is generated and stands in the repository is what the code gives now."""

import importlib.util
from pathlib import Path

import pytest
import yaml
from kfp import compiler

from longshore import components, pipelines
from longshore.authoring import IMAGES
from longshore.reference import describe

DEEP = {"train_torch": "torch", "package_torchserve": "torch"}
DEEP |= {"train_tensorflow": "tensorflow", "package_tensorflow": "tensorflow"}
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "tools" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("what", "suffix"),
    [
        ("pipelines", "*.yaml"),
        ("reference", "*.md"),
        ("roles", "*.yaml"),
        ("kserve", "*.yaml"),
        ("images", "*/Dockerfile"),
    ],
)
def test_the_repository_holds_what_the_code_gives(generate, tmp_path, what, suffix):
    made, place = generate.GENERATORS[what]
    made(tmp_path)
    fresh = {str(path.relative_to(tmp_path)): path.read_text(encoding="utf-8") for path in tmp_path.glob(suffix)}
    assert fresh
    for name, text in fresh.items():
        assert (place / name).read_text(encoding="utf-8") == text, f"run 'make compile reference' ({name} is stale)"


def test_no_compiled_pipeline_is_left_over():
    assert {path.stem for path in (ROOT / "manifests" / "pipelines").glob("*.yaml")} == set(pipelines.names())


def executors(document):
    return document["deploymentSpec"]["executors"].values()


@pytest.mark.parametrize("name", components.names())
def test_every_component_compiles_to_our_image_and_installs_nothing(name, tmp_path):
    path = tmp_path / "component.yaml"
    compiler.Compiler().compile(components.get(name), str(path))
    (executor,) = executors(yaml.safe_load(path.read_text()))
    assert executor["container"]["image"] == IMAGES[DEEP.get(name, "python")]
    assert "pip install" not in " ".join(executor["container"]["command"])


@pytest.mark.parametrize("name", [*components.names(), *pipelines.names()])
def test_everything_is_documented(name):
    told = describe(components.get(name) if name in components.names() else pipelines.get(name))
    assert told.name == name
    assert told.summary.endswith(".")
    undocumented = [field.name for field in (*told.inputs, *told.outputs) if not field.text]
    assert undocumented == []


@pytest.mark.parametrize("name", components.names())
def test_components_follow_the_naming_rules(name):
    told = describe(components.get(name))
    for field in told.inputs:
        assert field.default not in ("", -1), f"{field.name}: unset is None"
        assert not field.name.endswith(("_sec", "_secs", "timeout", "_ms"))
        # where a secret is may be said, and what it is may not
        named = field.name.endswith(("_file", "_secret"))
        assert named or not any(word in field.name for word in ("password", "token", "secret_value"))


WORLD_CHANGING = {"register_model", "package_model", "deploy_model"}


def test_steps_that_touch_the_world_are_not_cached():
    (document,) = yaml.safe_load_all((ROOT / "manifests" / "pipelines" / "train_and_deploy.yaml").read_text())
    tasks = {}
    for component in (document["root"], *document["components"].values()):
        tasks.update(component.get("dag", {}).get("tasks", {}))
    for name in WORLD_CHANGING | {"load_data", "validate_model", "predict_endpoint", "monitor_endpoint"}:
        assert not tasks[name.replace("_", "-")]["cachingOptions"].get("enableCache"), name
    assert tasks["train-sklearn"]["cachingOptions"]["enableCache"] is True


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="no component 'train_magic'"):
        _ = components.train_magic
    with pytest.raises(KeyError):
        pipelines.get("magic")
    assert "load_data" in dir(components)
