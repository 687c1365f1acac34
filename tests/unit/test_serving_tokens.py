"""Bearer tokens in a file: who is let in, what a changed file does, and what is never told."""

import logging
import os

import pytest

from longshore.errors import InvalidValue
from longshore.serving.refusals import RequestError
from longshore.serving.tokens import TokenFile
from longshore.serving.torchserve_setup import gate_tokens

ONE, TWO = "first-token-0123456789", "second-token-9876543210=="


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"# the team's\n{ONE}\n\n  {TWO}  \n")
    return path


def replace(path, text):
    new = path.with_name("new")
    new.write_text(text)
    new.replace(path)


def refused(check, authorization):
    with pytest.raises(RequestError) as error:
        check({} if authorization is None else {b"authorization": authorization})
    assert error.value.status == 401
    return str(error.value)


@pytest.mark.parametrize("token", [ONE, TWO])
@pytest.mark.parametrize("scheme", ["Bearer ", "bearer  "])
def test_each_token_is_let_in(path, scheme, token):
    TokenFile(path)({b"authorization": f"{scheme}{token}".encode()})


@pytest.mark.parametrize("given", [None, b"", b"Bearer", b"Basic Zmlyc3Q6eA==", ONE.encode()])
def test_who_has_none_is_told_how_to_send_one(path, given):
    assert "send the header 'Authorization: Bearer TOKEN'" in refused(TokenFile(path), given)


@pytest.mark.parametrize("token", [b"", ONE[:-1].encode(), f"{ONE}x".encode(), b"# the team's", b"\xff" * 20])
def test_an_unknown_token_is_refused_and_not_repeated(path, token):
    message = refused(TokenFile(path), b"Bearer " + token)
    assert message == "the token is not known here"


def test_a_changed_file_counts_from_the_next_request(path):
    check = TokenFile(path)
    check({b"authorization": f"Bearer {ONE}".encode()})
    replace(path, f"{TWO}\n")
    refused(check, f"Bearer {ONE}".encode())
    check({b"authorization": f"Bearer {TWO}".encode()})


def test_an_emptied_file_lets_nobody_in(path):
    check = TokenFile(path)
    replace(path, "# nobody\n")
    refused(check, f"Bearer {ONE}".encode())


@pytest.mark.parametrize("spoil", [os.unlink, lambda path: replace(path, "short\n")], ids=["absent", "no token"])
def test_what_was_known_goes_on_counting_when_the_file_is_spoilt_and_it_is_told_once(path, caplog, spoil):
    check = TokenFile(path)
    spoil(path)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            check({b"authorization": f"Bearer {ONE}".encode()})
    assert len(caplog.records) == 1
    assert "the tokens read last go on counting" in caplog.text
    assert "short" not in caplog.text
    replace(path, f"{TWO}\n")
    refused(check, f"Bearer {ONE}".encode())


@pytest.mark.parametrize(
    ("text", "rule"),
    [("", "holds no token"), (f"{ONE}\nsecret word\n", "line 2 is no token"), ("tooshort\n", "line 1 is no token")],
)
def test_a_file_that_cannot_be_meant_is_refused_without_its_content(path, text, rule):
    path.write_text(text)
    with pytest.raises(InvalidValue, match=rule) as error:
        TokenFile(path)
    assert not text.split() or text.split()[-1] not in str(error.value)


def test_an_absent_file_is_refused(tmp_path):
    with pytest.raises(InvalidValue, match="cannot be read: No such file"):
        TokenFile(tmp_path / "none")


def test_a_secrets_tokens_become_the_gates_list(tmp_path):
    (tmp_path / "team").write_text(f"# a\n{ONE}\n{TWO}\n")
    (tmp_path / "other").write_text("a.b+c/0123456789~\n")
    assert gate_tokens(tmp_path).splitlines() == [
        r'"~^[Bb]earer a\.b\+c/0123456789\~$" 1;',
        '"~^[Bb]earer first\\-token\\-0123456789$" 1;',
        '"~^[Bb]earer second\\-token\\-9876543210==$" 1;',
    ]
    for path in tmp_path.iterdir():
        path.write_text("# none\n")
    with pytest.raises(InvalidValue, match="the Secret holds no token"):
        gate_tokens(tmp_path)
