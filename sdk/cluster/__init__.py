"""Kubernetes clusters: sessions, server-side apply and watches. The only part of longshore that knows a client."""

from longshore.cluster.refusals import PRODUCTS
from longshore.cluster.runtime import ClusterRuntime
from longshore.cluster.session import Session, in_pod
from longshore.cluster.versions import kserve_version

__all__ = ["PRODUCTS", "ClusterRuntime", "Session", "in_pod", "kserve_version"]
