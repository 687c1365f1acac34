"""How components are declared, and what that makes of them when compiled."""

import pytest
import yaml
from kfp import compiler, dsl

from longshore.authoring import IMAGE, IMAGE_ENV, IMAGES, PACKAGES_ENV, component
from longshore.errors import InvalidValue


def step(text: str) -> str:
    """Say it."""
    return text


def compiled(item, path):
    compiler.Compiler().compile(item, str(path / "compiled.yaml"))
    return yaml.safe_load((path / "compiled.yaml").read_text())


def container(document):
    (executor,) = document["deploymentSpec"]["executors"].values()
    return executor["container"]


def test_a_step_runs_in_our_image_without_pip(tmp_path, monkeypatch):
    monkeypatch.delenv(IMAGE_ENV, raising=False)
    monkeypatch.delenv(PACKAGES_ENV, raising=False)
    declared = container(compiled(component(step), tmp_path))
    assert declared["image"] == IMAGE
    assert "pip" not in " ".join(declared["command"])


def test_the_image_can_be_ones_own(tmp_path, monkeypatch):
    monkeypatch.setenv(IMAGE_ENV, "registry.example.com/team/longshore-python:7")
    assert container(compiled(component(step), tmp_path))["image"] == "registry.example.com/team/longshore-python:7"


@pytest.mark.parametrize("kind", ["torch", "tensorflow"])
def test_deep_learning_has_images_of_its_own(kind, tmp_path, monkeypatch):
    monkeypatch.setenv(IMAGE_ENV, "registry.example.com/team/longshore-python:7")
    assert container(compiled(component(kind=kind)(step), tmp_path))["image"] == IMAGES[kind]
    monkeypatch.setenv(f"LONGSHORE_{kind.upper()}_IMAGE", "registry.example.com/team/deep:7")
    assert container(compiled(component(kind=kind)(step), tmp_path))["image"] == "registry.example.com/team/deep:7"


@pytest.mark.parametrize("image", ["a b", "image\n- injected: true"])
def test_an_image_that_is_none_is_refused(image, monkeypatch):
    monkeypatch.setenv(IMAGE_ENV, image)
    with pytest.raises(InvalidValue, match=IMAGE_ENV):
        component(step)


def test_packages_can_be_installed_where_no_own_image_can_be_had(tmp_path, monkeypatch):
    monkeypatch.setenv(PACKAGES_ENV, "longshore[local], ,extra==1")
    command = " ".join(container(compiled(component(step), tmp_path))["command"])
    assert "'longshore[local]' 'extra==1'" in command


@pytest.mark.parametrize(("cached", "expected"), [(True, {"enableCache": True}), (False, {})])
def test_caching_is_the_components_choice(tmp_path, cached, expected):
    declared = component(cached=cached)(step)

    @dsl.pipeline
    def one():
        declared(text="a")

    assert compiled(one, tmp_path)["root"]["dag"]["tasks"]["step"]["cachingOptions"] == expected


def test_a_pipeline_can_choose_otherwise(tmp_path):
    declared = component(cached=False)(step)

    @dsl.pipeline
    def one():
        declared(text="a").set_caching_options(True)

    assert compiled(one, tmp_path)["root"]["dag"]["tasks"]["step"]["cachingOptions"] == {"enableCache": True}


def test_the_function_can_still_be_called():
    assert component(cached=False)(step).python_func("a") == "a"
