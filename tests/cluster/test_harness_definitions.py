"""CRDs from the folder that the caller names: the API server is the judge of what is applied."""

import json

import pytest
from kubernetes.client.rest import ApiException

DEEPEST = 11


def deployment(namespace, graph):
    return {
        "apiVersion": "machinelearning.seldon.io/v1",
        "kind": "SeldonDeployment",
        "metadata": {"name": "model", "namespace": namespace},
        "spec": {"predictors": [{"name": "main", "graph": graph}]},
    }


def chain(levels):
    below = {"children": [chain(levels - 1)]} if levels > 1 else {}
    return {"name": f"node-{levels}", "type": "TRANSFORMER", **below}


def create(cluster, manifest):
    collection = cluster.path(manifest).rpartition("/")[0]
    return cluster.request("POST", collection, manifest, query={"fieldValidation": "Strict"})


def test_a_graph_may_be_deep(seldon_kinds, namespace):
    graph = chain(DEEPEST)
    made = create(seldon_kinds, deployment(namespace, graph))
    # the operators of other tests look into all namespaces
    seldon_kinds.request("DELETE", seldon_kinds.path(made))
    assert made["spec"]["predictors"][0]["graph"] == graph


def test_an_unknown_field_deep_in_a_graph_is_refused(seldon_kinds, namespace):
    graph = chain(3)
    graph["children"][0]["children"][0]["modelURI"] = "s3://models/iris"
    with pytest.raises(ApiException) as caught:
        create(seldon_kinds, deployment(namespace, graph))
    where = "spec.predictors[0].graph.children[0].children[0].modelURI"
    assert f'unknown field "{where}"' in json.loads(caught.value.body)["message"]
