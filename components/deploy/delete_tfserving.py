"""Remove a service of TensorFlow Serving."""

from typing import Optional

from longshore.authoring import component


@component(cached=False)
def delete_tfserving(name: str, namespace: Optional[str] = None):
    """Delete a service's Deployment and all that was applied with it, and wait until it is gone.

    What is gone already is no error. A server that longshore did not deploy is not touched.

    Args:
        name: Name of the service.
        namespace: Kubernetes namespace; by default that of the step, or of the kubeconfig's context.

    Raises:
        ClusterError: If the cluster refuses or cannot be reached.
    """
    from longshore.deployment import delete_service

    delete_service(name, platform="tensorflow-serving", namespace=namespace)
