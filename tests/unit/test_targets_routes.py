"""What stands in front of a service's revisions: what it renders, and how it reads what comes of it."""

from copy import deepcopy
from dataclasses import replace

import pytest

from longshore.errors import InvalidValue
from longshore.spec import (
    HealthState,
    KServeOptions,
    ModelSource,
    PayloadLogger,
    Release,
    Router,
    Service,
    Tls,
    Traffic,
)
from longshore.targets import target_of
from longshore.targets.base import REVISION_LABEL, SERVICE_LABEL, Ref
from longshore.targets.nginx import nginx_configuration
from longshore.targets.routed import routed_bearer

MODEL = ModelSource(uri="s3://models/iris/3", format="sklearn", name="iris", digest="sha256:" + "a" * 64)
NGINX = Router(kind="nginx")
GATEWAY = Router(kind="gateway-api", gateway="infra/public", hosts=["iris.example.com"])
ISTIO = Router(kind="istio", gateway="public", hosts=["iris.example.com"], url="https://10.0.0.1")
ALL = 100
BASE = "iris-00000000"
LABEL = "serving.kserve.io/inferenceservice"


def release(router=NGINX, model=MODEL, options=None, **traffic):
    service = Service(name="iris", namespace="prod", labels={"team": "a"}, router=router, kserve=options)
    return Release(service=service, model=model, traffic=Traffic(**traffic))


def rendered(wanted, platform="kserve"):
    manifests = target_of(platform, routed=True).render(wanted)
    return {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in manifests}


REVISION = release().revision
LANE = f"{REVISION}-lane"


def test_a_revision_is_an_inference_service_of_its_own_with_a_lane():
    made = rendered(release())
    own = made["InferenceService", REVISION]
    assert own["metadata"]["labels"] == {
        "team": "a",
        "networking.kserve.io/visibility": "cluster-local",
        SERVICE_LABEL: "iris",
        REVISION_LABEL: REVISION,
    }
    assert own["spec"]["predictor"]["labels"] == {REVISION_LABEL: REVISION}
    lane = made["Service", LANE]
    assert lane["spec"]["selector"] == {LABEL: REVISION, "component": "predictor"}
    assert lane["spec"]["ports"][0]["targetPort"] == 8080
    assert lane["metadata"]["labels"][REVISION_LABEL] == REVISION
    assert own["spec"]["predictor"].get("canaryTrafficPercent") is None


def test_the_first_object_is_the_services_address():
    first = target_of("kserve", routed=True).render(release())[0]
    assert Ref.of(first) == routed_bearer("iris", "prod") == Ref("v1", "Service", "iris", "prod")
    assert REVISION_LABEL not in first["metadata"]["labels"]


def test_what_stands_in_front_of_the_predictor_gets_the_requests():
    logger = KServeOptions(logger=PayloadLogger(url="http://log"))
    logged = rendered(release(options=logger))
    lane = next(m for (kind, name), m in logged.items() if kind == "Service" and name.endswith("-lane"))
    assert lane["spec"]["ports"][0]["targetPort"] == 9081


def test_a_deployment_is_a_lane_as_well():
    made = rendered(release(), "rest")
    assert made["Deployment", REVISION]["spec"]["selector"]["matchLabels"] == {SERVICE_LABEL: REVISION}
    assert made["Service", LANE]["spec"]["selector"] == {SERVICE_LABEL: REVISION}
    assert made["Service", LANE]["spec"]["ports"][0]["targetPort"] == "http"


SERVERS = [
    ("sklearn", None, ["--model_name=iris"], []),
    ("vllm", None, ["--served-model-name=iris"], []),
    ("mlflow", None, [], [{"name": "MLSERVER_MODEL_NAME", "value": "iris"}]),
    ("triton", None, [], []),
    ("sklearn", "team-server", [], []),
]


@pytest.mark.parametrize(("kind", "runtime", "args", "env"), SERVERS)
def test_the_model_keeps_the_services_name_whatever_serves_it(kind, runtime, args, env):
    bare = ModelSource(uri="s3://models/iris", format=kind, name="flowers")
    wanted = release(model=bare, options=KServeOptions(runtime=runtime))
    model = rendered(wanted)["InferenceService", wanted.revision]["spec"]["predictor"]["model"]
    assert (model["args"], model["env"]) == (args, env)


def test_requests_are_shared_out_by_nginx():
    configuration = nginx_configuration({"new": 20, "old": 80}, {"new": ["new.svc"], "old": ["a:80", "b:80"]})
    assert 'split_clients "$request_id" $revision { 20% new; * old; }' in configuration
    assert "upstream new { server new.svc max_fails=0; keepalive 32;" in configuration
    assert "upstream old { server a:80 max_fails=0; server b:80 max_fails=0; keepalive 32;" in configuration
    assert "mirror" not in configuration


@pytest.mark.parametrize(("percent", "split"), [(100, "{ * new; }"), (10, '{ 10% new; * ""; }')])
def test_requests_are_copied_by_nginx(percent, split):
    configuration = nginx_configuration({"old": 100}, {"new": ["new.svc"], "old": ["old.svc"]}, ("new", percent))
    assert "$revision { * old; }" in configuration
    assert f'split_clients "mirror$request_id" $copy {split}' in configuration
    assert "proxy_pass http://$copy$request_uri;" in configuration


def test_nginx_restarts_when_shares_change_and_not_otherwise():
    def template(wanted):
        return rendered(wanted)["Deployment", "iris-route"]["spec"]["template"]

    assert template(release()) == template(release())
    assert template(release(percent=20, base=BASE)) != template(release(percent=30, base=BASE))
    security = template(release())["spec"]["containers"][0]["securityContext"]
    assert security["readOnlyRootFilesystem"]
    assert not security["allowPrivilegeEscalation"]


def http_route(wanted):
    return rendered(wanted)["HTTPRoute", "iris"]["spec"]


SECURE = Router(kind="nginx", tls=Tls(secret="iris-tls", ca="-----BEGIN CERTIFICATE-----"))


def test_nginx_has_its_certificate_from_a_secret():
    made = rendered(release(SECURE))
    pod = made["Deployment", "iris-route"]["spec"]["template"]["spec"]
    (volume,) = [volume["secret"] for volume in pod["volumes"] if volume["name"] == "certificate"]
    assert volume["secretName"] == "iris-tls"
    assert [item["key"] for item in volume["items"]] == ["tls.crt", "tls.key"]
    (container,) = pod["containers"]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "certificate"]
    assert mount["readOnly"]
    assert {container[probe]["httpGet"]["scheme"] for probe in ("readinessProbe", "livenessProbe")} == {"HTTPS"}
    (configuration,) = made["Deployment", "iris-route"]["spec"]["template"]["metadata"]["annotations"].values()
    assert f'default "{mount["mountPath"]}";' in configuration
    assert "iris-tls" not in configuration
    needed = target_of("kserve", routed=True).needs(release(SECURE))
    assert needed == {"Router.tls.secret": Ref("v1", "Secret", "iris-tls", "prod")}


@pytest.mark.parametrize(
    ("port", "ports", "address"),
    [
        (None, {"https": 443, "http": 80}, ""),
        (8443, {"https": 8443, "http": 80}, ":8443"),
        (80, {"https": 80}, ":80"),
    ],
)
def test_with_a_certificate_the_address_is_one_of_https(port, ports, address):
    wanted = release(SECURE)
    wanted = replace(wanted, service=replace(wanted.service, port=port))
    spec = rendered(wanted)["Service", "iris"]["spec"]
    assert {entry["name"]: entry["port"] for entry in spec["ports"]} == ports
    endpoint = target_of("kserve", routed=True).endpoint(wanted, [])
    assert endpoint.url == f"https://iris.prod.svc.cluster.local{address}"
    assert endpoint.headers == {"Host": "iris.prod.svc.cluster.local"}
    assert endpoint.ca == SECURE.tls.ca
    # a revision's own address is not the Nginx's
    assert endpoint.revision_url.startswith("http://")
    (configuration,) = rendered(wanted)["Deployment", "iris-route"]["spec"]["template"]["metadata"][
        "annotations"
    ].values()
    assert f"=308 https://$host{address}$request_uri;" in configuration


def test_another_certificate_takes_other_pods():
    def labels(secret):
        wanted = release(replace(SECURE, tls=replace(SECURE.tls, secret=secret)))
        return rendered(wanted)["Deployment", "iris-route"]["spec"]["template"]["metadata"]["labels"]

    assert labels("a") == labels("a") != labels("b")


def test_files_are_no_certificate_on_kubernetes():
    tls = Tls(cert_file="/a.crt", key_file="/a.key")
    with pytest.raises(InvalidValue, match=r"Tls\.cert_file.*Secret"):
        rendered(release(Router(kind="nginx", tls=tls)))


def test_what_stands_beside_a_revision_is_not_rendered_again():
    before = release(model=replace(MODEL, uri="s3://models/iris/2"))
    canary = release(percent=20).next_to(before)
    assert canary.beside == (before,)
    made = rendered(canary)
    assert ("InferenceService", REVISION) in made
    assert ("InferenceService", before.revision) not in made


def test_several_revisions_keep_a_part_each():
    (rule,) = http_route(release(GATEWAY, percent=10, rest={BASE: 70, "iris-0": 20, "iris-1": 0}))["rules"]
    weights = {one["name"].removesuffix("-lane"): one["weight"] for one in rule["backendRefs"]}
    assert weights == {release().revision: 10, BASE: 70, "iris-0": 20}


def test_requests_are_shared_out_by_a_gateway():
    spec = http_route(release(GATEWAY, percent=20, base=BASE))
    assert spec["hostnames"] == ["iris.example.com"]
    assert [(parent["namespace"], parent["name"]) for parent in spec["parentRefs"]] == [("infra", "public")]
    (rule,) = spec["rules"]
    assert [(one["name"], one["weight"]) for one in rule["backendRefs"]] == [(LANE, 20), (f"{BASE}-lane", 80)]
    assert "filters" not in rule


@pytest.mark.parametrize(("percent", "share"), [(100, None), (10, 10)])
def test_requests_are_copied_by_a_gateway(percent, share):
    (rule,) = http_route(release(GATEWAY, percent=0, mirror_percent=percent, base=BASE))["rules"]
    assert [(one["name"], one["weight"]) for one in rule["backendRefs"]] == [(f"{BASE}-lane", 100)]
    (copied,) = rule["filters"]
    assert copied["requestMirror"]["backendRef"]["name"] == LANE
    assert copied["requestMirror"].get("percent") == share


def test_requests_are_shared_out_and_copied_by_istio():
    spec = rendered(release(ISTIO, percent=20, base=BASE))["VirtualService", "iris"]["spec"]
    assert spec["hosts"] == ["iris.prod.svc.cluster.local", "iris.example.com"]
    assert spec["gateways"] == ["mesh", "prod/public"]
    (rule,) = spec["http"]
    found = [(one["destination"]["host"], one["weight"]) for one in rule["route"]]
    assert found == [(f"{LANE}.prod.svc.cluster.local", 20), (f"{BASE}-lane.prod.svc.cluster.local", 80)]
    shadow = rendered(release(ISTIO, percent=0, mirror_percent=5, base=BASE))["VirtualService", "iris"]["spec"]
    (rule,) = shadow["http"]
    assert len(rule["route"]) == 1
    assert rule["mirror"]["host"] == f"{LANE}.prod.svc.cluster.local"
    assert rule["mirrorPercentage"] == {"value": 5}
    mesh = rendered(release(Router(kind="istio")))["VirtualService", "iris"]["spec"]
    assert "gateways" not in mesh


@pytest.mark.parametrize("router", [GATEWAY, ISTIO], ids=["gateway-api", "istio"])
@pytest.mark.parametrize(("percent", "leads_to"), [(20, BASE), (80, REVISION), (0, BASE)])
def test_past_a_gateway_the_largest_share_answers(router, percent, leads_to):
    address = rendered(release(router, percent=percent, base=BASE))["Service", "iris"]
    assert address["spec"]["selector"] == {LABEL: leads_to, "component": "predictor"}


def test_the_endpoint_is_the_gateways_or_the_services_address():
    def endpoint(router, **service):
        wanted = release(router)
        wanted = replace(wanted, service=replace(wanted.service, **service))
        return target_of("kserve", routed=True).endpoint(wanted, [])

    own = endpoint(NGINX)
    assert own.url == "http://iris.prod.svc.cluster.local"
    assert own.revision_url == f"http://{LANE}.prod.svc.cluster.local"
    assert own.model == "iris"
    assert endpoint(NGINX, port=9000).url == "http://iris.prod.svc.cluster.local:9000"
    assert endpoint(GATEWAY).url == "http://iris.prod.svc.cluster.local"
    public = endpoint(ISTIO)
    assert (public.url, public.headers) == ("https://10.0.0.1", {"Host": "iris.example.com"})


REFUSED = [
    (release(options=KServeOptions(mode="Knative")), "Knative shares requests out by itself"),
    (release(model=replace(MODEL, format="triton", digest=None), options=KServeOptions(protocol="grpc-v2")), "HTTP"),
    (release(model=replace(MODEL, uri="/models/iris")), "pods cannot read a path"),
]


@pytest.mark.parametrize(("wanted", "words"), REFUSED)
def test_what_cannot_be_routed_is_refused(wanted, words):
    with pytest.raises(InvalidValue, match=words):
        rendered(wanted)


def test_a_name_that_gets_too_long_with_its_revision_is_refused():
    wanted = release()
    wanted = replace(wanted, service=replace(wanted.service, name="i" * 43, namespace="p"))
    with pytest.raises(InvalidValue, match=r"Service\.name"):
        rendered(wanted)


# ---- health


def seen(wanted):
    """All objects of a release as they are once it has come up."""
    made = deepcopy(target_of("kserve", routed=True).render(wanted))
    for manifest in made:
        manifest["metadata"] |= {"generation": 2, "uid": manifest["kind"]}
        if manifest["kind"] == "InferenceService":
            manifest["status"] = {"conditions": [{"type": "Ready", "status": "True"}]}
            spec = manifest["spec"]["predictor"]
            template = {
                "labels": {**manifest["metadata"]["labels"], **spec["labels"]},
                "annotations": dict(spec["annotations"]),
            }
            made.append(rolled_out(f"{wanted.revision}-predictor", 1, template))
        if manifest["kind"] == "Deployment" and manifest["metadata"]["name"] == "iris-route":
            manifest["status"] = rolled_out("", 2, {})["status"]
        if manifest["kind"] == "HTTPRoute":
            conditions = [{"type": kind, "status": "True", "observedGeneration": 2} for kind in TAKEN]
            manifest["status"] = {"parents": [{"conditions": conditions}]}
    return made


TAKEN = ("Accepted", "ResolvedRefs")


def rolled_out(name, replicas, template):
    counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), replicas)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "generation": 2},
        "spec": {"replicas": replicas, "template": {"metadata": template}},
        "status": {"observedGeneration": 2, **counts},
    }


def pod(name, labels):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "status": {}}


def health(wanted, observed):
    return target_of("kserve", routed=True).health(wanted, observed)


def one(observed, kind, name=None):
    return next(m for m in observed if m["kind"] == kind and name in (None, m["metadata"]["name"]))


@pytest.mark.parametrize("router", [NGINX, GATEWAY, ISTIO], ids=lambda router: router.kind)
def test_a_release_is_done_when_its_revision_and_its_route_are(router):
    wanted = release(router)
    assert health(wanted, seen(wanted)).state is HealthState.READY
    without = [m for m in seen(wanted) if m["metadata"]["name"] != f"{wanted.revision}-predictor"]
    assert health(wanted, without).state is HealthState.PROGRESSING


def test_pods_that_share_out_as_before_are_waited_for():
    wanted = release()
    observed = [*seen(wanted), pod("old", {"longshore.dev/route": "iris", "longshore.dev/route-setting": "old"})]
    found = health(wanted, observed)
    assert found.state is HealthState.PROGRESSING
    assert "1 pods of iris-route that share out as before are ending" in found.why


def test_a_router_that_somebody_else_changed_is_told():
    wanted = release()
    observed = seen(release(percent=20, base=BASE))
    found = health(wanted, observed)
    assert found.state is HealthState.FAILED
    assert "somebody else changed the Deployment iris-route" in found.why


def test_a_route_that_no_controller_has_looked_at_is_told():
    wanted = release(GATEWAY)
    observed = seen(wanted)
    one(observed, "HTTPRoute")["status"] = {}
    found = health(wanted, observed)
    assert found.state is HealthState.STALLED
    assert "no controller of the Gateway infra/public" in found.why


@pytest.mark.parametrize("kind", TAKEN)
def test_a_route_that_the_gateway_does_not_take_is_told(kind):
    wanted = release(GATEWAY)
    observed = seen(wanted)
    for condition in one(observed, "HTTPRoute")["status"]["parents"][0]["conditions"]:
        if condition["type"] == kind:
            condition |= {"status": "False", "reason": "NotAllowed", "message": "by listeners"}
    found = health(wanted, observed)
    assert found.state is HealthState.STALLED
    assert "NotAllowed: by listeners" in found.why


def test_the_gateways_word_on_the_route_of_before_does_not_count():
    wanted = release(GATEWAY)
    observed = seen(wanted)
    one(observed, "HTTPRoute")["metadata"]["generation"] = 3
    assert health(wanted, observed).state is HealthState.PROGRESSING


def test_what_istio_finds_wrong_is_told():
    wanted = release(ISTIO)
    observed = seen(wanted)
    message = {"level": "ERROR", "type": {"code": "IST0101"}, "documentationUrl": "https://istio.io/IST0101"}
    one(observed, "VirtualService")["status"] = {"validationMessages": [message]}
    found = health(wanted, observed)
    assert found.state is HealthState.STALLED
    assert "IST0101" in found.why


def test_the_objects_of_revisions_are_those_that_are_named_after_them():
    target, wanted = target_of("kserve", routed=True), release()
    kinds = {(selection.api_version, selection.kind) for selection in target.revisions(wanted.service)}
    own = [m for m in target.render(wanted) if REVISION_LABEL in m["metadata"]["labels"]]
    assert {(m["apiVersion"], m["kind"]) for m in own} <= kinds
    assert {m["metadata"]["name"] for m in own} == {REVISION, LANE}
