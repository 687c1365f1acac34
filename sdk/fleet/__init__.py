"""Many services at once, such as the thousands of models that a few Servers of Seldon Core 2 hold.

The same as :func:`longshore.release.deploy` for each of them, but together: what there is is listed once, each object
that changes is written once, all are awaited by one watch for each kind, and one lease keeps other deployments out. A
service that does not come up keeps what it served, and holds up no other.
"""

from __future__ import annotations

from longshore.fleet.engine import FleetReport, FleetRuntime, deploy_fleet
from longshore.fleet.models import deploy_models, render_models

__all__ = ["FleetReport", "FleetRuntime", "deploy_fleet", "deploy_models", "render_models"]
