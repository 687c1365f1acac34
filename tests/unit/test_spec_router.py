"""What a router may be asked for."""

import pytest

from longshore.errors import InvalidValue
from longshore.spec import Router, Tls, from_plain, to_plain

PEM = "-----BEGIN CERTIFICATE-----\n...\n-----END CERTIFICATE-----\n"
FILES = {"cert_file": "/etc/a.crt", "key_file": "/etc/a.key"}


@pytest.mark.parametrize(
    "tls", [{"secret": "a"}, FILES, {"secret": "a.b", "host": "models.example.com", "ca": PEM}, {**FILES, "host": "a"}]
)
def test_a_certificate_is_a_secret_or_files_and_survives_json(tls):
    router = Router(kind="nginx", tls=Tls(**tls), access_log=True)
    assert from_plain(Router, to_plain(router)) == router
    assert from_plain(Router, {"kind": "nginx", "tls": tls, "access_log": True}) == router


@pytest.mark.parametrize(
    ("tls", "field"),
    [
        ({}, "secret"),
        ({"secret": "a", **FILES}, "secret"),
        ({"secret": "a b"}, "secret"),
        ({"cert_file": "/a.crt"}, "cert_file"),
        ({"key_file": "/a.key"}, "key_file"),
        ({**FILES, "cert_file": "a.crt"}, "cert_file"),
        ({**FILES, "key_file": "/a\0b"}, "key_file"),
        ({"secret": "a", "host": "a;b"}, "host"),
        ({"secret": "a", "host": "$host"}, "host"),
        ({"secret": "a", "ca": "/etc/ca.pem"}, "ca"),
        ({"secret": "a", "ca": PEM + "-----BEGIN EC PRIVATE KEY-----"}, "ca"),
    ],
)
def test_what_is_no_certificate_is_refused(tls, field):
    with pytest.raises(InvalidValue) as refused:
        Tls(**tls)
    assert refused.value.field == f"Tls.{field}"
    assert "PRIVATE" not in str(refused.value)


@pytest.mark.parametrize("only", [{"tls": Tls(secret="a")}, {"access_log": True}, {"sticky": True}])
def test_what_only_nginx_has_is_refused_elsewhere(only):
    with pytest.raises(InvalidValue, match="only the kind nginx has it"):
        Router(kind="istio", **only)
