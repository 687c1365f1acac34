"""Remove a service of Seldon Core 2."""

from typing import Optional

from longshore.authoring import component


@component(cached=False)
def delete_seldon_v2(name: str, namespace: Optional[str] = None):
    """Delete a service's Experiment and all that its revisions have of their own, and wait until it is gone.

    Those are Models, Pipelines and Servers. What is gone already is no error. What the service named and did not bring
    stays: Servers, the Models of a pipeline's other steps, the Model of ``default``, which answers its own clients
    again.

    Args:
        name: Name of the service.
        namespace: Kubernetes namespace; by default that of the step, or of the kubeconfig's context.

    Raises:
        ClusterError: If the cluster refuses or cannot be reached, or does not have Seldon Core 2.
    """
    from longshore.deployment import delete_service

    delete_service(name, platform="seldon-v2", namespace=namespace)
