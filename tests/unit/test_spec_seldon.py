"""Seldon Core 1's options: what is refused, naming the field."""

import pytest

from longshore.errors import InvalidValue
from longshore.spec import (
    KedaTrigger,
    Resources,
    SeldonExplainer,
    SeldonGateway,
    SeldonNode,
    SeldonOptions,
    from_plain,
    to_plain,
)

MODEL = SeldonNode(name="model")
OTHER = SeldonNode(name="other", implementation="SKLEARN_SERVER", uri="s3://models/other")


def router(*children, **given):
    return SeldonNode(name="bandit", kind="router", implementation="EPSILON_GREEDY", children=children, **given)


def chain(depth):
    node = MODEL
    for number in range(depth - 1):
        node = SeldonNode(name=f"step-{number}", kind="transformer", image="team/step:1", children=[node])
    return node


def test_options_come_back_from_json():
    options = SeldonOptions(
        protocol="seldon",
        graph=router(MODEL, OTHER, parameters={"epsilon": 0.2, "seed": 3}),
        explainer=SeldonExplainer(type="AnchorTabular", uri="s3://models/explainer", config={"threshold": "0.9"}),
        gateway=SeldonGateway(url="https://models.example.com", hosts=["*.example.com"], retries=2),
        keda=[KedaTrigger(type="prometheus", metadata={"query": "up", "threshold": "5"})],
        parameters={"method": "predict_proba"},
    )
    assert from_plain(SeldonOptions, to_plain(options)) == options


def test_a_graph_may_be_as_deep_as_seldons_schema():
    assert [node.name for node in chain(11).walk()][-1] == "model"
    SeldonOptions(graph=chain(11))
    with pytest.raises(InvalidValue, match="Seldon takes 11 nodes below each other"):
        SeldonOptions(graph=chain(12))


def test_a_graph_that_goes_round_is_refused():
    below = SeldonNode(name="bandit", kind="transformer", image="team/step:1", children=[MODEL])
    with pytest.raises(InvalidValue, match="requests would go round: bandit -> bandit") as refused:
        SeldonOptions(graph=router(below, OTHER))
    assert refused.value.field == "SeldonNode.name"


def node(**given):
    return lambda: SeldonNode(**{"name": "node", **given})


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: SeldonOptions(implementation="SKLEARN"), "SeldonOptions.implementation"),
        (lambda: SeldonOptions(protocol="v1"), "SeldonOptions.protocol"),
        (lambda: SeldonOptions(parameters={"a b": 1}), "SeldonOptions.parameters key"),
        (lambda: SeldonOptions(parameters={"a": None}), "SeldonOptions.parameters['a']"),
        (lambda: SeldonOptions(storage_secret="A_b"), "SeldonOptions.storage_secret"),
        (lambda: SeldonOptions(rest_timeout_seconds=0), "SeldonOptions.rest_timeout_seconds"),
        (lambda: SeldonOptions(engine_env={"1": "a"}), "SeldonOptions.engine_env key"),
        (lambda: SeldonOptions(graph=OTHER), "SeldonOptions.graph"),
        (lambda: SeldonOptions(graph=router(MODEL, SeldonNode(name="two"))), "SeldonOptions.graph"),
        (lambda: SeldonOptions(graph=router(MODEL, OTHER, OTHER)), "SeldonNode.name"),
        (node(name="Node"), "SeldonNode.name"),
        (node(name="n" * 49), "SeldonNode.name"),
        (node(name="seldon-container-engine"), "SeldonNode.name"),
        (node(kind="MODEL"), "SeldonNode.kind"),
        (node(kind="transformer"), "SeldonNode.image"),
        (node(kind="router", image="a:1"), "SeldonNode.children"),
        (node(kind="router", implementation="SKLEARN_SERVER"), "SeldonNode.kind"),
        (node(implementation="SIMPLE_MODEL"), "SeldonNode.implementation"),
        (node(implementation="SKLEARN_SERVER"), "SeldonNode.uri"),
        (node(image="a b"), "SeldonNode.image"),
        (node(image="a:1", args="-x"), "SeldonNode.args"),
        (node(image="a:1", secrets="s"), "SeldonNode.secrets"),
        (node(uri="s3://models/a"), "SeldonNode.uri"),
        (node(env={"A": "b"}), "SeldonNode.env"),
        (node(resources=Resources(cpu="1")), "SeldonNode.resources"),
        (
            node(kind="router", implementation="RANDOM_ABTEST", image="a:1", children=[MODEL, OTHER]),
            "SeldonNode.image",
        ),
        (node(kind="router", implementation="RANDOM_ABTEST", children=[MODEL]), "SeldonNode.children"),
        (
            node(kind="router", implementation="RANDOM_ABTEST", children=[MODEL, OTHER], parameters={"ratioA": 1.5}),
            "SeldonNode.parameters['ratioA']",
        ),
        (
            node(kind="router", implementation="EPSILON_GREEDY", uri="s3://a/b", children=[MODEL, OTHER]),
            "SeldonNode.uri",
        ),
        (lambda: SeldonExplainer(type="anchor_tabular"), "SeldonExplainer.type"),
        (lambda: SeldonExplainer(type="ALE", uri=""), "SeldonExplainer.uri"),
        (lambda: SeldonExplainer(type="ALE", config={"a": 1}), "SeldonExplainer.config['a']"),
        (lambda: SeldonGateway(kind="nginx"), "SeldonGateway.kind"),
        (lambda: SeldonGateway(url="models.example.com"), "SeldonGateway.url"),
        (lambda: SeldonGateway(url="https://a:b@models.example.com"), "SeldonGateway.url"),
        (lambda: SeldonGateway(gateway="a/b/c"), "SeldonGateway.gateway"),
        (lambda: SeldonGateway(hosts="example.com"), "SeldonGateway.hosts"),
        (lambda: SeldonGateway(headers={"a": "b"}), "SeldonGateway.headers"),
        (lambda: SeldonGateway(kind="ambassador", hosts=["example.com"]), "SeldonGateway.hosts"),
        (lambda: SeldonGateway(kind="ambassador", headers={"a": "b:c"}), "SeldonGateway.headers['a']"),
        (lambda: KedaTrigger(type="Prometheus"), "KedaTrigger.type"),
        (lambda: KedaTrigger(type="cpu", metadata={"value": 5}), "KedaTrigger.metadata['value']"),
    ],
)
def test_a_refusal_names_the_field(build, field):
    with pytest.raises(InvalidValue) as refused:
        build()
    assert refused.value.field == field


def test_a_password_in_a_url_is_not_repeated():
    with pytest.raises(InvalidValue) as refused:
        SeldonGateway(url="https://a:secret@models.example.com")
    assert "secret" not in str(refused.value)
