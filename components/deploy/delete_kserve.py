"""Remove an InferenceService."""

from typing import Optional

from longshore.authoring import component


@component(cached=False)
def delete_kserve(name: str, namespace: Optional[str] = None):
    """Delete an InferenceService and wait until it is gone; what is gone already is no error.

    Args:
        name: Name of the InferenceService.
        namespace: Kubernetes namespace; by default that of the step, or of the kubeconfig's context.

    Raises:
        ClusterError: If the cluster refuses or cannot be reached, or does not have KServe.
    """
    from longshore.deployment import delete_service

    delete_service(name, platform="kserve", namespace=namespace)
