"""Remove a service of Seldon Core 1."""

from typing import Optional

from longshore.authoring import component


@component(cached=False)
def delete_seldon(name: str, namespace: Optional[str] = None):
    """Delete a service's SeldonDeployment with all of its revisions, and wait until it is gone.

    What is gone already is no error.

    Args:
        name: Name of the SeldonDeployment.
        namespace: Kubernetes namespace; by default that of the step, or of the kubeconfig's context.

    Raises:
        ClusterError: If the cluster refuses or cannot be reached, or does not have Seldon Core 1.
    """
    from longshore.deployment import delete_service

    delete_service(name, platform="seldon", namespace=namespace)
