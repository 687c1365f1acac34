"""The client over Seldon's protocol, against Seldon's own microservice: by its address, and behind a gateway."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import requests
from harness.nginx import nginx
from harness.serving import refused, wait_for
from harness.system import free_ports

from longshore.client import Answer, Client, ask, predict, probe, replay, send_feedback
from longshore.errors import ConfigError, DeployError, InputError, InvalidValue
from longshore.packaging import frame_to_rows, read_card
from longshore.serving import Predictor
from longshore.spec import Endpoint
from longshore.training.data import read_table

PROTOCOLS = ("seldon", "grpc-seldon")
CLASSES = ["Adelie", "Chinstrap", "Gentoo"]


@pytest.fixture(scope="module")
def endpoint(seldon):
    return Endpoint(
        name="penguins",
        url=seldon.url,
        grpc_url=seldon.grpc_url,
        model="penguins",
        revision="penguins-1",
        protocols=PROTOCOLS,
        headers={"seldon": "penguins", "namespace": "team"},
        ingress_path="/seldon/team/penguins",
    )


@pytest.fixture(scope="module")
def rows(penguins_model, penguins_table):
    frame = read_table(penguins_table).drop(columns="species")
    chosen = frame_to_rows(read_card(penguins_model).signature, frame.iloc[::40].head(8))
    return [*chosen, {**chosen[0], "sex": None}, {**chosen[1], "bill_length_mm": None, "island": None}]


@pytest.fixture(scope="module")
def expected(penguins_model, rows):
    return Predictor.load(penguins_model, name="p", digest=None, version=None, revision="r").predict(rows).values


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_all_kinds_of_rows_are_predicted_alike(endpoint, rows, expected, protocol):
    assert endpoint.predict(rows, protocol=protocol) == expected
    with Client(endpoint, protocol=protocol) as client:
        assert client.answering() == "penguins-1"
        assert client.predict(pd.DataFrame(rows)) == expected
        assert client.predict([list(row.values()) for row in rows]) == expected
        assert client.predict([dict(reversed(row.items())) for row in rows]) == expected
    probe(endpoint, rows[:2], CLASSES, protocol=protocol)
    report = replay(endpoint, rows, CLASSES, protocol=protocol, batch_size=4)
    assert (report.requests, report.failed, report.rows) == (3, 0, len(rows))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numbers_go_as_arrays_and_probabilities_come_back_by_row(seldon_iris, iris_model, protocol):
    iris = Endpoint(
        name="iris",
        url=seldon_iris.url,
        grpc_url=seldon_iris.grpc_url,
        model="iris",
        revision="iris-1",
        protocols=PROTOCOLS,
    )
    rows = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]])
    model = Predictor.load(iris_model, name="i", digest=None, version=None, revision="r")
    assert predict(iris, rows, protocol=protocol) == model.predict(rows.tolist(), probabilities=True).probabilities


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_bad_row_is_refused_in_the_servers_words(endpoint, rows, protocol):
    with pytest.raises(InputError, match=r"answered (400|INVALID_ARGUMENT): row 0, column 'bill_length_mm': expected"):
        predict(endpoint, [{**rows[0], "bill_length_mm": "wide"}], protocol=protocol)
    with pytest.raises(InputError, match="some rows are mappings and some are sequences"):
        predict(endpoint, [rows[0], list(rows[0].values())], protocol=protocol)
    nowhere = replace(endpoint, url="http://127.0.0.1:1", grpc_url=None)
    with Client(nowhere, protocol=protocol) as client:
        assert client.answering() is None
        with pytest.raises(DeployError, match="did not answer|UNAVAILABLE"):
            client.predict(rows)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_feedback_is_counted_for_who_answered(endpoint, seldon, rows, protocol):
    def counted(name, **labels):
        return seldon.counted(f"longshore_feedback{name}_total", predictor_version="v7", **labels)

    names = ("", "_reward", "_penalty")
    before = [counted(name) for name in names]
    right = counted("_rows", correct="true")
    with Client(endpoint, protocol=protocol) as client:
        answer = client.ask(rows[:3])
        assert answer.response["meta"]["tags"]["predictor"] == "main"
        # it may be kept until somebody knows
        kept = Answer(**json.loads(json.dumps(vars(answer))))
        client.send_feedback(kept, 1.0, truth=np.array(answer.predictions))
        client.send_feedback(answer, 0)
    send_feedback(endpoint, ask(endpoint, rows[:1], protocol=protocol), -0.25, protocol=protocol)
    assert [counted(name) - value for name, value in zip(names, before, strict=True)] == [3, 1, 0.25]
    assert counted("_rows", correct="true") - right == 3
    with (
        pytest.raises(InputError, match="'truth' has 1 values, and 'response' has 3"),
        Client(endpoint, protocol=protocol) as client,
    ):
        client.send_feedback(answer, 1.0, truth=["Adelie"])


def test_feedback_that_cannot_be_sent(endpoint):
    with (
        pytest.raises(ConfigError, match="asked in v1, and feedback is sent in seldon or grpc-seldon only"),
        Client(replace(endpoint, protocols=("v1",))) as client,
    ):
        client.send_feedback(Answer(predictions=[1]), 1.0)
    with Client(endpoint) as client, pytest.raises(InvalidValue, match="give what Client.ask gave"):
        client.send_feedback(Answer(predictions=[1]), 1.0)


@pytest.fixture(scope="module")
def gateway(seldon, tmp_path_factory):
    """Nginx with the routes that Seldon's operator has a gateway make: by path, and over gRPC by metadata."""
    port, grpc_port = free_ports(2)
    folder = tmp_path_factory.mktemp("gateway")
    configuration = f"""
    daemon off; pid {folder}/pid; events {{ }}
    http {{
      access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
      uwsgi_temp_path {folder}; scgi_temp_path {folder};
      map "$http_seldon/$http_namespace" $known {{ "penguins/team" 1; default 0; }}
      server {{
        listen 127.0.0.1:{port};
        location / {{ return 404; }}
        location /seldon/team/penguins/ {{ proxy_pass {seldon.url}/; }}
      }}
      server {{
        listen 127.0.0.1:{grpc_port} http2;
        location / {{
          if ($known = 0) {{ return 404; }}
          grpc_pass grpc://127.0.0.1:{seldon.grpc_port};
        }}
      }}
    }}
    """
    rest, rpc = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{grpc_port}"
    with nginx(configuration, folder):
        wait_for(lambda: not refused(rest) and not refused(rpc))
        yield rest, rpc


def test_behind_a_gateway_the_path_tells_which_service_is_meant(endpoint, gateway, rows, expected):
    seen = endpoint.through(gateway[0])
    assert seen.url.endswith("/seldon/team/penguins")
    assert predict(seen, rows) == expected
    probe(seen, rows[:1], CLASSES)
    send_feedback(seen, ask(seen, rows[:1]), 1.0)
    assert requests.get(gateway[0], timeout=10).status_code == 404


def test_behind_a_gateway_metadata_tells_which_service_is_meant(endpoint, gateway, rows, expected):
    seen = replace(endpoint.through(gateway[0]), grpc_url=gateway[1])
    assert predict(seen, rows, protocol="grpc-seldon") == expected
    with pytest.raises(DeployError, match="UNIMPLEMENTED"):
        predict(replace(seen, headers={"seldon": "others"}), rows, protocol="grpc-seldon")
