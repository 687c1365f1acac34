"""What Seldon Core 2 is told: what is refused, by which field."""

import json
from dataclasses import replace

import pytest

from longshore.errors import InvalidValue
from longshore.spec import (
    ModelSource,
    Release,
    Scaling,
    SeldonV2Explainer,
    SeldonV2Options,
    SeldonV2Pipeline,
    SeldonV2Server,
    SeldonV2Step,
    Service,
    Traffic,
    from_plain,
    to_plain,
)

OWN = SeldonV2Step(name="model")


def pipeline(*steps, **fields):
    return SeldonV2Pipeline(steps=steps, **fields)


def step(name, *inputs, **fields):
    return SeldonV2Step(name=name, inputs=inputs, **fields)


REFUSED = {
    "requirements as one string": (lambda: SeldonV2Options(requirements="sklearn"), "SeldonV2Options.requirements"),
    "a requirement with a comma": (lambda: SeldonV2Options(requirements=["a,b"]), "SeldonV2Options.requirements"),
    "a name that no Secret has": (lambda: SeldonV2Options(storage_secret="a b"), "SeldonV2Options.storage_secret"),
    "a Server and one of its own": (
        lambda: SeldonV2Options(server="mlserver", own_server=SeldonV2Server()),
        "SeldonV2Options.server",
    ),
    "a negative version": (lambda: SeldonV2Options(artifact_version=-1), "SeldonV2Options.artifact_version"),
    "a parameter that is no string": (lambda: SeldonV2Options(parameters={"a": 1}), "SeldonV2Options.parameters['a']"),
    "more than all payloads": (lambda: SeldonV2Options(logger_percent=101), "SeldonV2Options.logger_percent"),
    "a default that no Model is called": (lambda: SeldonV2Options(default="a.b"), "SeldonV2Options.default"),
    "a namespace that is none": (lambda: SeldonV2Options(mesh_namespace="A"), "SeldonV2Options.mesh_namespace"),
    "a config that is no name": (lambda: SeldonV2Server(config="/etc"), "SeldonV2Server.config"),
    "a capability that is none": (lambda: SeldonV2Server(capabilities=[" "]), "SeldonV2Server.capabilities"),
    "no kind of explainer": (lambda: SeldonV2Explainer(type="", uri="s3://a/b"), "SeldonV2Explainer.type"),
    "a password in a URI": (
        lambda: SeldonV2Explainer(type="anchor_tabular", uri="s3://me:secret@a/b"),
        "SeldonV2Explainer.uri",
    ),
    "a pipeline without the model": (lambda: pipeline(step("a")), "SeldonV2Pipeline.steps"),
    "two steps of a name": (lambda: pipeline(OWN, step("a"), step("a")), "SeldonV2Step.name"),
    "a step called like the request": (lambda: step("pipeline"), "SeldonV2Step.name"),
    "an unknown step": (lambda: pipeline(step("model", "scaler")), "SeldonV2Step.inputs"),
    "an unknown trigger": (lambda: pipeline(step("model", triggers=["scaler"])), "SeldonV2Step.inputs"),
    "a cycle": (
        lambda: pipeline(step("model", "b"), step("a", "model"), step("b", "a.outputs.x")),
        "SeldonV2Step.inputs",
    ),
    "a cycle of one": (lambda: pipeline(step("model", "model")), "SeldonV2Step.inputs"),
    "a cycle by a trigger": (
        lambda: pipeline(step("model", "a"), step("a", triggers=["model"])),
        "SeldonV2Step.inputs",
    ),
    "an input that is a trigger, too": (
        lambda: step("model", "a.outputs.x", triggers=["a.outputs.y"]),
        "SeldonV2Step.triggers",
    ),
    "something other than inputs and outputs": (lambda: step("model", "a.results"), "SeldonV2Step.inputs"),
    "another join": (lambda: step("model", inputs_join="left"), "SeldonV2Step.inputs_join"),
    "no time": (lambda: step("model", join_window_ms=0), "SeldonV2Step.join_window_ms"),
    "a tensor map without tensors": (
        lambda: step("model", tensor_map={"a.outputs": "x"}),
        "SeldonV2Step.tensor_map key",
    ),
    "an output of nowhere": (lambda: pipeline(OWN, output=["a"]), "SeldonV2Pipeline.output"),
    # what shares out is the traffic's, and it has one place for one copy
    "weights beyond all": (lambda: Traffic(percent=120), "Traffic.percent"),
    "answers and copies": (lambda: Traffic(percent=20, mirror_percent=20), "Traffic.mirror_percent"),
}


@pytest.mark.parametrize(("make", "field"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_names_its_field(make, field):
    with pytest.raises(InvalidValue) as refused:
        make()
    assert refused.value.field == field


def test_a_cycle_is_told_as_the_way_round():
    with pytest.raises(InvalidValue, match="model -> b -> a -> model"):
        pipeline(step("model", "b"), step("a", "model"), step("b", "a"))


def test_steps_may_meet_again():
    pipeline(step("a", "pipeline.inputs.x"), step("b"), step("model", "a", "b.outputs.y"), output=["model", "b"])


def test_options_are_kept_as_json():
    options = SeldonV2Options(
        requirements=["sklearn"],
        own_server=SeldonV2Server(capabilities=["gpu"]),
        explainer=SeldonV2Explainer(type="anchor_tabular", uri="s3://a/b"),
        pipeline=pipeline(step("a", "pipeline"), step("model", "a", tensor_map={"a.outputs.x": "y"})),
    )
    assert from_plain(SeldonV2Options, json.loads(json.dumps(to_plain(options)))) == options


def test_what_seldon_is_told_makes_a_revision_and_replicas_do_not():
    model = ModelSource(uri="s3://models/iris/1", format="sklearn", name="iris")
    release = Release(service=Service(name="iris"), model=model)
    told = replace(release.service, seldon_v2=SeldonV2Options(parameters={"a": "b"}))
    assert replace(release, service=told).revision != release.revision
    more = replace(release.service, scaling=Scaling(min_replicas=3))
    assert replace(release, service=more).revision == release.revision
