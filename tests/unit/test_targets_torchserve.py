"""The platform ``torchserve``: what it renders, refuses and asks for."""

from dataclasses import replace

import pytest

from longshore.errors import InvalidValue
from longshore.spec import (
    ModelSource,
    Release,
    Resources,
    Router,
    Scaling,
    Service,
    Tls,
    TorchServeOptions,
    Traffic,
    from_plain,
    to_plain,
)
from longshore.spec.image import image_name
from longshore.targets import target_of
from longshore.targets.base import REVISION_LABEL, SERVICE_LABEL, Ref
from longshore.targets.gate import GATE_ANNOTATION
from longshore.targets.nginx import NGINX_IMAGE
from longshore.targets.torchserve import OFFICIAL_IMAGE, TorchServeTarget, as_deployed

MODEL = ModelSource(
    uri="s3://models/digits/3", format="torchserve", name="digits", version="3", digest="sha256:" + "a" * 64
)
OPTIONS = TorchServeOptions(token_secret="tokens", tls=Tls(secret="certificate", host="digits.example", ca=None))
SERVICE = Service(
    name="digits",
    namespace="prod",
    resources=Resources(cpu="500m", memory="2Gi", gpu=1),
    env={"LOG": "1"},
    secrets=["bucket"],
    torchserve=OPTIONS,
)
RELEASE = Release(service=SERVICE, model=MODEL)


def changed(**options):
    return replace(RELEASE, service=replace(SERVICE, torchserve=replace(OPTIONS, **options)))


def kinds(release=RELEASE):
    return {manifest["kind"]: manifest for manifest in TorchServeTarget().render(release)}


def pod(release=RELEASE):
    return kinds(release)["Deployment"]["spec"]["template"]


def containers(release=RELEASE):
    spec = pod(release)["spec"]
    return {one["name"]: one for one in (*spec["initContainers"], *spec["containers"])}


def test_torchserve_stands_behind_a_gate_and_alone_on_its_loopback():
    setup, server, gate = (containers()[name] for name in ("setup", "server", "gate"))
    assert setup["image"] == server["image"] == image_name("torch")
    assert gate["image"] == NGINX_IMAGE
    assert setup["args"][:3] == ["--model=s3://models/digits/3", "--place=/mnt/models", f"--digest={MODEL.digest}"]
    assert server["command"] == ["python", "/mnt/models/torchserve_process.py"]
    settings = dict(one.removeprefix("--set=").split("=", 1) for one in server["args"] if one.startswith("--set="))
    for name in ("inference", "management", "metrics"):
        assert settings[f"{name}_address"].startswith("http://127.0.0.1:")
    assert settings["grpc_inference_address"] == settings["grpc_management_address"] == "127.0.0.1"
    assert settings["enable_model_api"] == "false"
    # only what the gate listens on is declared, and let through
    assert [port["containerPort"] for port in gate["ports"]] == [8080, 9000, 8082]
    assert "ports" not in server
    (rule,) = kinds()["NetworkPolicy"]["spec"]["ingress"]
    assert {8080, 9000, 8082} <= {one["port"] for one in rule["ports"]}
    assert not {8085, 8086, 7070, 7071} & {one["port"] for one in rule["ports"]}


def test_the_server_is_a_sidecar_that_outlives_the_gate():
    server = containers()["server"]
    assert server["restartPolicy"] == "Always"
    assert server["startupProbe"]["exec"]["command"] == ["test", "-e", "/tmp/ready"]
    assert "--ready-file=/tmp/ready" in server["args"]
    assert "--words-file=/dev/termination-log" in server["args"]
    assert pod()["spec"]["terminationGracePeriodSeconds"] == 45


def test_containers_may_do_nothing_else():
    for container in containers().values():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert pod()["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod()["spec"]["automountServiceAccountToken"] is False
    assert pod()["spec"]["enableServiceLinks"] is False
    setup, server = containers()["setup"], containers()["server"]
    assert "nvidia.com/gpu" in server["resources"]["limits"]
    assert "nvidia.com/gpu" not in setup["resources"]["limits"]
    for one in (setup, server):
        assert one["envFrom"] == [{"secretRef": {"name": "bucket"}}]


def test_tokens_reach_the_gate_through_memory_and_torchserve_never():
    volumes = {volume["name"]: volume for volume in pod()["spec"]["volumes"]}
    assert volumes["tokens"]["secret"]["secretName"] == "tokens"
    assert volumes["gate-tokens"]["emptyDir"]["medium"] == "Memory"
    mounted = {name: {mount["name"] for mount in one["volumeMounts"]} for name, one in containers().items()}
    assert {"tokens", "gate-tokens"} <= mounted["setup"]
    assert mounted["server"] == {"models", "scratch"}
    assert mounted["gate"] == {"gate", "gate-scratch", "gate-tokens", "certificate"}
    configuration = pod()["metadata"]["annotations"][GATE_ANNOTATION]
    assert "default 0; include /etc/longshore-tokens/tokens.conf;" in configuration
    assert 'proxy_set_header Authorization "";' in configuration


def test_anonymous_and_plaintext_are_asked_for_by_name():
    release = changed(token_secret=None, anonymous=True, tls=None, plaintext=True)
    configuration = pod(release)["metadata"]["annotations"][GATE_ANNOTATION]
    assert "map $http_authorization $gate_lets { default 1; }" in configuration
    assert "ssl" not in configuration
    assert kinds(release)["Service"]["spec"]["ports"][0]["port"] == 80
    endpoint = TorchServeTarget().endpoint(release, [])
    assert (endpoint.url, endpoint.grpc_url) == ("http://digits.prod.svc", "http://digits.prod.svc:9000")


def test_clients_come_by_tls_and_find_grpc_beside():
    ports = kinds()["Service"]["spec"]["ports"]
    assert [(one["name"], one["port"], one["targetPort"]) for one in ports] == [
        ("https", 443, "http"),
        ("grpc", 9000, "grpc"),
    ]
    assert containers()["gate"]["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"
    endpoint = TorchServeTarget().endpoint(RELEASE, [])
    assert endpoint.url == "https://digits.prod.svc.cluster.local"
    assert endpoint.grpc_url == "https://digits.prod.svc.cluster.local:9000"
    assert endpoint.headers == {"Host": "digits.example"}
    assert endpoint.model == "digits"
    assert endpoint.protocols == ("v1", "v2", "torchserve", "grpc-torchserve")
    other = replace(RELEASE, service=replace(SERVICE, port=8443))
    assert TorchServeTarget().endpoint(other, []).url == "https://digits.prod.svc.cluster.local:8443"
    assert "https://digits.example:8443$request_uri" in pod(other)["metadata"]["annotations"][GATE_ANNOTATION]


def test_longshores_own_server_takes_its_place():
    release = changed(instead="longshore")
    server = containers(release)["server"]
    assert server["command"] == ["python", "-m", "longshore.serving"]
    assert "--model=/mnt/models/package" in server["args"]
    # an image of TorchServe's is none of longshore's
    theirs = replace(release, service=replace(release.service, image="pytorch/torchserve:1"))
    assert containers(theirs)["server"]["image"] == containers(theirs)["setup"]["image"] == image_name("torch")
    assert "--host=127.0.0.1" in server["args"]
    assert f"--digest={MODEL.digest}" in server["args"]
    # the same address, tokens and certificate
    assert kinds(release)["Service"] == kinds()["Service"]
    assert containers(release)["gate"] == containers()["gate"]
    assert release.revision != RELEASE.revision
    assert TorchServeTarget().endpoint(release, []).protocols == ("v1", "v2", "grpc-v2")
    assert TorchServeTarget().endpoint(replace(RELEASE, lane="digits-1"), []).protocols == ("v1", "v2", "torchserve")


def test_a_pod_monitor_where_it_is_asked_for():
    assert "PodMonitor" not in kinds()
    release = changed(pod_monitor=True)
    spec = kinds(release)["PodMonitor"]["spec"]
    assert spec["selector"]["matchLabels"] == {SERVICE_LABEL: "digits"}
    assert spec["podMetricsEndpoints"] == [{"port": "metrics", "path": "/metrics"}]
    assert REVISION_LABEL in spec["podTargetLabels"]
    monitor = Ref("monitoring.coreos.com/v1", "PodMonitor", "digits", "prod")
    assert monitor in TorchServeTarget().objects(release.service)
    # where the kind is not installed, nothing asks for it
    assert monitor not in TorchServeTarget().objects(SERVICE)


def test_it_scales_as_rest_does():
    scaled = replace(RELEASE, service=replace(SERVICE, scaling=Scaling(min_replicas=2, max_replicas=5)))
    assert {"HorizontalPodAutoscaler", "PodDisruptionBudget"} <= set(kinds(scaled))


def test_a_package_on_a_volume_is_brought_from_there():
    release = replace(RELEASE, model=replace(MODEL, uri="pvc://models/digits/3"))
    assert "--model=/mnt/source/digits/3" in containers(release)["setup"]["args"]
    volumes = pod(release)["spec"]["volumes"]
    assert {"name": "source", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}} in volumes


def test_its_secrets_are_looked_for_first():
    assert TorchServeTarget().needs(RELEASE) == {
        "Service.secrets[0]": Ref("v1", "Secret", "bucket", "prod"),
        "TorchServeOptions.token_secret": Ref("v1", "Secret", "tokens", "prod"),
        "TorchServeOptions.tls.secret": Ref("v1", "Secret", "certificate", "prod"),
    }


def test_behind_a_router_the_revisions_speak_http_and_the_router_tls():
    router = Router(kind="nginx", tls=Tls(secret="certificate"))
    service = replace(SERVICE, router=router, torchserve=replace(OPTIONS, tls=None))
    release = Release(service=service, model=MODEL, traffic=Traffic(percent=20, base="digits-0"))
    manifests = target_of("torchserve", routed=True).render(release)
    deployment = next(m for m in manifests if m["metadata"]["name"] == release.revision)
    configuration = deployment["spec"]["template"]["metadata"]["annotations"][GATE_ANNOTATION]
    assert "ssl" not in configuration
    # tokens are asked for where the model is
    assert "tokens.conf" in configuration
    lane = next(m for m in manifests if m["metadata"]["name"] == f"{release.revision}-lane")
    assert lane["spec"]["ports"][0]["targetPort"] == "http"


@pytest.mark.parametrize(
    ("release", "field"),
    [
        (replace(RELEASE, model=replace(MODEL, format="pytorch")), "ModelSource.format"),
        (replace(RELEASE, model=replace(MODEL, uri="/models/digits")), "ModelSource.uri"),
        (replace(RELEASE, traffic=Traffic(percent=10)), "Traffic.percent"),
        (changed(token_secret=None), "TorchServeOptions.token_secret"),
        (changed(tls=None), "TorchServeOptions.tls"),
        (replace(RELEASE, service=replace(SERVICE, torchserve=None)), "TorchServeOptions.token_secret"),
    ],
)
def test_what_it_does_not_have_is_refused(release, field):
    with pytest.raises(InvalidValue, match=field.replace(".", r"\.")):
        TorchServeTarget().render(release)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"token_secret": "a b"}, "TorchServeOptions.token_secret"),
        ({"token_secret": "tokens", "anonymous": True}, "TorchServeOptions.anonymous"),
        ({"tls": Tls(secret="tls"), "plaintext": True}, "TorchServeOptions.plaintext"),
        ({"tls": Tls(cert_file="/a", key_file="/b")}, "Tls.cert_file"),
        ({"instead": "seldon"}, "TorchServeOptions.instead"),
        ({"gate_image": "a b"}, "TorchServeOptions.gate_image"),
    ],
)
def test_options_check_themselves(options, field):
    with pytest.raises(InvalidValue, match=field.replace(".", r"\.")):
        TorchServeOptions(**options)


def test_a_router_has_the_certificate():
    with pytest.raises(InvalidValue, match=r"TorchServeOptions\.tls"):
        replace(SERVICE, router=Router(kind="nginx", tls=Tls(secret="tls")))
    with pytest.raises(InvalidValue, match=r"Router\.tls"):
        replace(SERVICE, router=Router(kind="nginx"), torchserve=replace(OPTIONS, tls=None))
    replace(SERVICE, router=Router(kind="nginx"), torchserve=replace(OPTIONS, tls=None, plaintext=True))


def test_a_rollback_finds_the_images_of_the_day():
    ours = as_deployed(SERVICE, packaged=True)
    assert (ours.image, ours.torchserve.setup_image) == (image_name("torch"), image_name("torch"))
    assert ours.torchserve.gate_image == NGINX_IMAGE
    # archives of others need no longshore beside them, and TorchServe's own image has none
    assert as_deployed(SERVICE, packaged=False).image == OFFICIAL_IMAGE
    assert as_deployed(replace(SERVICE, image="mine:1"), packaged=True).image == "mine:1"
    assert as_deployed(ours, packaged=True) == ours


def test_a_release_survives_being_written_down():
    assert from_plain(Release, to_plain(RELEASE)) == RELEASE
