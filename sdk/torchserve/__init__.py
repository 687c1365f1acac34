"""A TorchServe that runs already: versions of models beside each other, through its management API.

:func:`deploy_version` brings a packaged version up beside the one that serves, asks it for its example rows and moves
the default, without a request that fails; :class:`ModelServer` is the management API itself.

TorchServe is not developed any further, and gets no fixes of security. KServe with ONNX or Triton, and longshore's own
server (``deploy_model``), serve the same registered model.
"""

from longshore.torchserve.deploy import DeployedVersion, deploy_version, promote_version, unregister_version
from longshore.torchserve.plan import Plan, plan_deploy
from longshore.torchserve.server import ModelServer, Refused
from longshore.torchserve.versions import Version, Worker

__all__ = [
    "DeployedVersion",
    "ModelServer",
    "Plan",
    "Refused",
    "Version",
    "Worker",
    "deploy_version",
    "plan_deploy",
    "promote_version",
    "unregister_version",
]
