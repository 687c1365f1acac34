"""KServe's controller for language models beside KServe itself, with all the kinds that it wants."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from kubernetes.client.rest import ApiException

from harness.builds import built, module_folder
from harness.cluster import Cluster, eventually, write_kubeconfig
from harness.keeper import Keeper
from harness.plane import Plane
from harness.system import free_port
from harness.webhooks import documents, webhook_address, write_certificates

__all__ = ["LLMController"]

_NAMESPACE = "kserve"
_ACCOUNT = "llmisvc-controller-manager"
_GROUP = "/apis/serving.kserve.io/v1alpha2"
_OF_OTHERS = ("gateway-inference-extension*.yaml", "gatewayapi_*.yaml", "leaderworkerset*.yaml")


class LLMController:
    """Adds LLMInferenceServices to a control plane that has KServe; nothing there carries out Gateways or pod groups.

    Args:
        keeper: Holds the process.
        plane: The control plane.
        cluster: The same, for requests.
    """

    def __init__(self, keeper: Keeper, plane: Plane, cluster: Cluster) -> None:
        self._keeper, self._plane, self._cluster = keeper, plane, cluster
        self._program = built("llmisvc") / "kserve-llmisvc"
        self._source = module_folder("llmisvc", "github.com/kserve/kserve")
        self._port = free_port()
        self._folder = keeper.folder / "llmisvc"

    def start(self) -> None:
        """Install everything, and return when an LLMInferenceService is admitted."""
        self._folder.mkdir()
        for manifest in (*self._crds(), *self._roles()):
            self._cluster.apply(manifest)
        write_certificates(self._plane, self._folder, "llmisvc")
        # the controller looks for its kinds once
        for kind in ("llminferenceservices", "llminferenceserviceconfigs"):
            eventually(partial(self._cluster.get, f"{_GROUP}/{kind}"), kind)
        self._start_program()
        for manifest in self._read("config/webhook/llmisvc/manifests.yaml"):
            for webhook in manifest["webhooks"]:
                path = webhook["clientConfig"]["service"]["path"]
                webhook["clientConfig"] = webhook_address(self._plane, self._port, path)
            self._cluster.apply(manifest)
        eventually(self._refuses, "KServe's refusals of LLMInferenceServices")
        for path in sorted((self._source / "config" / "llmisvcconfig").glob("config-*.yaml")):
            for manifest in documents(path):
                manifest["metadata"]["namespace"] = _NAMESPACE
                self._cluster.apply(manifest)

    def _start_program(self) -> None:
        token = self._cluster.token(_NAMESPACE, _ACCOUNT, 86400)
        kubeconfig = write_kubeconfig(
            self._folder / "kubeconfig", self._plane.url, self._plane.authority.pem, token=token
        )
        self._keeper.spawn(
            "kserve-llmisvc",
            [
                self._program,
                f"--kubeconfig={kubeconfig}",
                "--metrics-addr=0",
                f"--health-probe-addr=127.0.0.1:{free_port()}",
                f"--webhook-port={self._port}",
                "--leader-elect=false",
            ],
            env={"TMPDIR": str(self._folder), "POD_NAMESPACE": _NAMESPACE, "KUBECONFIG": str(kubeconfig)},
            net=self._plane.net,
            kill=True,
        )

    def _refuses(self) -> bool:
        """Whether a spread is refused that the schema allows."""
        self._keeper.check("kserve-llmisvc")
        manifest = {
            "apiVersion": "serving.kserve.io/v1alpha2",
            "kind": "LLMInferenceService",
            "metadata": {"name": "bad", "namespace": _NAMESPACE},
            "spec": {"model": {"uri": "hf://a/b"}, "parallelism": {"data": 2}},
        }
        collection = f"{_GROUP}/namespaces/{_NAMESPACE}/llminferenceservices"
        try:
            self._cluster.request("POST", collection, manifest, query={"dryRun": "All"})
        except ApiException as error:
            # until it listens, nobody answers (500)
            return bool(error.status == 422)
        return False

    def _crds(self) -> Iterator[dict[str, Any]]:
        for path in sorted((self._source / "config" / "crd" / "full" / "llmisvc").glob("serving.kserve.io_*.yaml")):
            for manifest in documents(path):
                address = webhook_address(self._plane, self._port, "/convert")
                webhook = {"clientConfig": address, "conversionReviewVersions": ["v1"]}
                manifest["spec"]["conversion"] = {"strategy": "Webhook", "webhook": webhook}
                yield manifest
        for pattern in _OF_OTHERS:
            for path in sorted((self._source / "test" / "crds").glob(pattern)):
                yield from documents(path)

    def _roles(self) -> Iterator[dict[str, Any]]:
        for name in ("service_account.yaml", "role.yaml", "clusterrolebinding.yaml"):
            for manifest in self._read(f"config/rbac/llmisvc/{name}"):
                for subject in manifest.get("subjects", ()):
                    subject["name"] = _ACCOUNT
                yield manifest

    def _read(self, path: str) -> list[dict[str, Any]]:
        return documents(self._source / path)
