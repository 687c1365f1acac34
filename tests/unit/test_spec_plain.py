"""Values as JSON, and back."""

import json

import pytest

from longshore.errors import InvalidValue
from longshore.spec import (
    Batcher,
    Container,
    KServeOptions,
    ModelSource,
    PayloadLogger,
    Release,
    Resources,
    Scaling,
    Service,
    Toleration,
    Traffic,
    from_plain,
    to_plain,
)

RELEASE = Release(
    service=Service(
        name="iris",
        resources=Resources(cpu="1"),
        scaling=Scaling(min_replicas=2, max_replicas=4),
        env={"A": "b"},
        secrets=["s"],
        node_selector={"pool": "gpu"},
        tolerations=[Toleration(key="gpu", effect="NoSchedule")],
        kserve=KServeOptions(
            mode="Knative",
            transformer=Container(image="team/t:1", args=["-x"], env={"C": "d"}, resources=Resources(memory="1Gi")),
            logger=PayloadLogger(url="http://sink"),
            batcher=Batcher(max_size=4),
            args=["--fast"],
        ),
    ),
    model=ModelSource(uri="s3://models/iris", format="sklearn", name="iris"),
    traffic=Traffic(percent=20, base="iris-0", rest={"iris-0": 70, "iris-1": 10}),
    beside=[Release(service=Service(name="iris"), model=ModelSource(uri="/iris", format="sklearn", name="iris"))],
)


def test_a_release_comes_back_as_it_was():
    text = json.dumps(to_plain(RELEASE))
    back = from_plain(Release, json.loads(text))
    assert back == RELEASE
    assert back.revision == RELEASE.revision


def test_what_was_written_before_a_field_existed_has_its_default():
    plain = to_plain(RELEASE)
    for field in ("node_selector", "tolerations", "kserve"):
        del plain["service"][field]
    assert from_plain(Release, plain).service.kserve is None


@pytest.mark.parametrize(
    ("kind", "plain", "words"),
    [
        (Toleration, {"kee": "gpu"}, "Toleration.kee = 'gpu' is not valid: its fields are key, value, effect, seconds"),
        (Container, {}, "Container.image = None is not valid: give a value"),
        (Container, "team/t:1", "Container = 'team/t:1' is not valid: use a mapping"),
        (KServeOptions, {"transformer": {"image": "UPPER"}}, "Container.image"),
        (KServeOptions, {"mode": "Serverless"}, "use one of Standard, Knative"),
        (KServeOptions, {"mode": "Knative", "autoscaler": "hpa"}, "in Knative mode, Knative scales"),
        (KServeOptions, {"args": "--fast"}, "use a list of strings"),
        (PayloadLogger, {"url": "sink"}, "use an http or https URL"),
        (PayloadLogger, {"url": "http://me:secret@sink"}, "no password in a URL"),
        (Batcher, {"max_size": 0}, "Batcher.max_size"),
        (Toleration, {"value": "x"}, "a value needs a key"),
        (Toleration, {"key": "a", "seconds": 3}, "goes with the effect NoExecute only"),
        (Toleration, {"effect": "Never"}, "use one of NoSchedule"),
    ],
)
def test_what_is_not_valid_is_named(kind, plain, words):
    with pytest.raises(InvalidValue) as refused:
        from_plain(kind, plain)
    assert words in str(refused.value)
    assert "secret" not in str(refused.value)
