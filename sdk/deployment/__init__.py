"""Serve a model on a platform that is given by name: the engine with everything it needs.

The facade over target, runtime, smoke test and registry, for components, the command line and plain Python.
"""

from longshore.deployment.changes import delete_service, deploy_model, promote_service, rollback_service, undo_run
from longshore.deployment.inference import ask, observe_endpoint, predict, replay_table, send_feedback
from longshore.deployment.lookup import (
    default_namespace,
    deployed_release,
    earlier_release,
    example_rows,
    find_endpoint,
)
from longshore.deployment.settings import REGISTRY_ANNOTATION, with_storage_secret
from longshore.targets import PLATFORMS

__all__ = [
    "PLATFORMS",
    "REGISTRY_ANNOTATION",
    "ask",
    "default_namespace",
    "delete_service",
    "deploy_model",
    "deployed_release",
    "earlier_release",
    "example_rows",
    "find_endpoint",
    "observe_endpoint",
    "predict",
    "promote_service",
    "replay_table",
    "rollback_service",
    "send_feedback",
    "undo_run",
    "with_storage_secret",
]
