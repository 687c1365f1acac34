"""Remove a service of TorchServe."""

from typing import Optional

from longshore.authoring import component


@component(cached=False)
def delete_torchserve(name: str, namespace: Optional[str] = None):
    """Delete TorchServe's Deployment, its Service and all that goes with them, and wait until they are gone.

    What is gone already is no error.

    Args:
        name: Name of the service.
        namespace: Kubernetes namespace; by default that of the step, or of the kubeconfig's context.

    Raises:
        ClusterError: If the cluster refuses or cannot be reached.
    """
    from longshore.deployment import delete_service

    delete_service(name, platform="torchserve", namespace=namespace)
