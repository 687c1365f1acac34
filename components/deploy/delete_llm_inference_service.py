"""Remove an LLMInferenceService."""

from typing import Optional

from longshore.authoring import component


@component(cached=False)
def delete_llm_inference_service(name: str, namespace: Optional[str] = None):
    """Delete an LLMInferenceService and wait until it is gone; what is gone already is no error.

    Args:
        name: Name of the LLMInferenceService.
        namespace: Kubernetes namespace; by default that of the step, or of the kubeconfig's context.

    Raises:
        ClusterError: If the cluster refuses or cannot be reached, or has no LLMInferenceService.
    """
    from longshore.kserve import delete_llm

    delete_llm(name, namespace=namespace)
