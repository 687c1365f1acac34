"""KServe's own controller and webhooks, with its CRDs, roles, runtimes and configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from kubernetes.client.rest import ApiException

from harness.builds import built, module_folder
from harness.cluster import Cluster, eventually, write_kubeconfig
from harness.definitions import is_served
from harness.keeper import Keeper
from harness.plane import Plane
from harness.system import free_port
from harness.webhooks import documents, webhook_address, write_certificates

__all__ = ["KServe"]

_NAMESPACE = "kserve"
_ACCOUNT = "kserve-controller-manager"
_WRITERS = 8


class KServe:
    """Installs KServe on a control plane; its pods are whatever the cluster's nodes make of them.

    Args:
        keeper: Holds the process.
        plane: The control plane.
        cluster: The same, for requests.
    """

    def __init__(self, keeper: Keeper, plane: Plane, cluster: Cluster) -> None:
        self._keeper, self._plane, self._cluster = keeper, plane, cluster
        self._program = built("kserve") / "kserve-manager"
        source = module_folder("kserve", "github.com/kserve/kserve")
        self._version = source.name.partition("@")[2]
        self._config = source / "config"
        self._ports = {name: free_port() for name in ("metrics", "health", "webhooks")}
        self._folder = keeper.folder / "kserve"

    def start(self, *, crds: Literal["full", "minimal"] = "full") -> None:
        """Install everything, and return when an InferenceService is admitted.

        Args:
            crds: With the whole schema of a pod, or without.
        """
        self._folder.mkdir()
        self._cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAMESPACE}})
        definitions = list(self._crds(crds))
        self._apply_all(definitions)
        self._apply_all(self._settings())
        write_certificates(self._plane, self._folder, "kserve")
        # the manager looks for its kinds once, and ends if one is not there
        eventually(lambda: all(is_served(self._cluster, one) for one in definitions), "KServe's kinds")
        self.start_manager()

    def start_manager(self) -> None:
        """Start the controller, and return when its webhooks answer."""
        token = self._cluster.token(_NAMESPACE, _ACCOUNT, 86400)
        kubeconfig = write_kubeconfig(
            self._folder / "kubeconfig", self._plane.url, self._plane.authority.pem, token=token
        )
        self._keeper.spawn(
            "kserve-manager",
            [
                self._program,
                f"--kubeconfig={kubeconfig}",
                f"--metrics-addr=127.0.0.1:{self._ports['metrics']}",
                f"--health-probe-addr=127.0.0.1:{self._ports['health']}",
                f"--webhook-port={self._ports['webhooks']}",
                "--leader-elect=false",
            ],
            env={"TMPDIR": str(self._folder), "POD_NAMESPACE": _NAMESPACE, "KUBECONFIG": str(kubeconfig)},
            net=self._plane.net,
            kill=True,
        )
        # not before the manager is there: without it they refuse KServe's own runtimes
        self._apply_all(self._webhooks())
        eventually(self._fills_in, "KServe's defaults")
        eventually(self._refuses, "KServe's refusals")

    def stop_manager(self) -> None:
        """End the controller; its webhooks stay registered, and refuse everything."""
        self._keeper.stop("kserve-manager")

    def _fills_in(self) -> bool:
        """Whether an InferenceService gets its defaults: the old spelling of a model becomes the new one."""
        return "model" in self._try("good")["spec"]["predictor"]

    def _refuses(self) -> bool:
        """Whether a name is refused that Kubernetes itself allows."""
        try:
            self._try("1-bad")
        except ApiException as error:
            if error.status == 403:
                return True
            raise
        return False

    def _try(self, name: str) -> Any:
        """Create an InferenceService as a trial, through the API server: only that can reach the manager everywhere."""
        self._keeper.check("kserve-manager")
        manifest = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": name, "namespace": _NAMESPACE},
            "spec": {"predictor": {"sklearn": {"storageUri": "s3://models/none"}}},
        }
        collection = self._cluster.path(manifest).rpartition("/")[0]
        return self._cluster.request("POST", collection, manifest, query={"dryRun": "All"})

    def _apply_all(self, manifests: Iterable[dict[str, Any]]) -> None:
        with ThreadPoolExecutor(_WRITERS) as pool:
            for _ in pool.map(self._cluster.apply, manifests):
                pass

    def _crds(self, crds: str) -> Iterator[dict[str, Any]]:
        for path in sorted((self._config / "crd" / crds).rglob("serving.kserve.io_*.yaml")):
            if path.parent.name in (crds, "clusterstoragecontainer", "localmodel"):
                yield from documents(path)
        # what carries them out is harness.knative
        resources = module_folder("kserve", "knative.dev/serving") / "config" / "core" / "300-resources"
        for name in ("configuration", "revision", "route", "service"):
            yield from documents(resources / f"{name}.yaml")

    def _settings(self) -> Iterator[dict[str, Any]]:
        yield self._configuration()
        for name in ("service_account.yaml", "role.yaml", "role_binding.yaml"):
            for manifest in documents(self._config / "rbac" / name):
                if manifest["kind"] == "ServiceAccount":
                    manifest["metadata"]["namespace"] = _NAMESPACE
                for subject in manifest.get("subjects", ()):
                    subject["namespace"] = _NAMESPACE
                yield manifest
        for folder in ("runtimes", "storagecontainers"):
            yield from self._with_images(self._config / folder)

    def _with_images(self, folder: Path) -> Iterator[dict[str, Any]]:
        """What a kustomization lists, with the image names that it gives, in the version of the module."""
        (kustomization,) = documents(folder / "kustomization.yaml")
        images = {
            image["name"]: self._released(f"{image['newName']}:{image['newTag']}") for image in kustomization["images"]
        }
        for name in kustomization["resources"]:
            for manifest in documents(folder / name):
                text = json.dumps(manifest)
                for mark, image in images.items():
                    text = text.replace(f'"{mark}:replace"', f'"{image}"')
                yield json.loads(text)

    def _released(self, text: str) -> str:
        """With the version in place of the tag ``latest`` of KServe's own images."""
        return re.sub(r"\b(kserve/[a-z-]+):latest", rf"\1:{self._version}", text)

    def _configuration(self) -> dict[str, Any]:
        (manifest,) = documents(self._config / "configmap" / "inferenceservice.yaml")
        data = manifest["data"]
        data.pop("_example", None)
        data = {name: self._released(text) for name, text in data.items()}
        # there is no Istio: a Service is reached through an Ingress, or at its own address
        ingress = {**json.loads(data["ingress"]), "disableIstioVirtualHost": True}
        data["ingress"] = json.dumps(ingress)
        data["deploy"] = json.dumps({"defaultDeploymentMode": "Standard"})
        return {**manifest, "data": data}

    def _webhooks(self) -> Iterator[dict[str, Any]]:
        """The webhook configurations, with the manager's address in place of a Service's."""
        for manifest in documents(self._config / "webhook" / "manifests.yaml"):
            for webhook in manifest["webhooks"]:
                path = webhook["clientConfig"]["service"]["path"]
                webhook["clientConfig"] = webhook_address(self._plane, self._ports["webhooks"], path)
            yield manifest
