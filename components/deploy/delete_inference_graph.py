"""Remove an InferenceGraph."""

from typing import Optional

from longshore.authoring import component


@component(cached=False)
def delete_inference_graph(name: str, namespace: Optional[str] = None):
    """Delete an InferenceGraph, without the services that it asks; what is gone already is no error.

    Args:
        name: Name of the InferenceGraph.
        namespace: Kubernetes namespace; by default that of the step, or of the kubeconfig's context.

    Raises:
        ClusterError: If the cluster refuses or cannot be reached, or does not have KServe.
    """
    from longshore.kserve import delete_graph

    delete_graph(name, namespace=namespace)
