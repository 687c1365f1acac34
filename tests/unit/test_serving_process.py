"""What a server is told it serves: by its arguments, or by the environment of an image with a model in it."""

from argparse import ArgumentParser

import pytest

from longshore.errors import InvalidValue
from longshore.serving.process import add_model_arguments, source_of

OWN, OTHER = ("sha256:" + digit * 64 for digit in "12")


@pytest.fixture
def baked(monkeypatch):
    monkeypatch.setenv("LONGSHORE_MODEL", "/opt/model")
    monkeypatch.setenv("LONGSHORE_MODEL_NAME", "iris")
    monkeypatch.setenv("LONGSHORE_MODEL_DIGEST", OWN)
    monkeypatch.setenv("LONGSHORE_REVISION", "iris-1111")


def source(*arguments):
    parser = ArgumentParser()
    add_model_arguments(parser)
    return source_of(parser.parse_args(arguments))


GIVEN = ("--model=s3://models/iris", "--name=flowers", "--revision=flowers-2")


def test_without_an_image_of_its_own_the_arguments_are_needed(capsys):
    with pytest.raises(SystemExit):
        source()
    assert "--model, --name, --revision" in capsys.readouterr().err
    told = source(*GIVEN, f"--digest={OWN}")
    assert (told.uri, told.name, told.revision, told.digests) == (GIVEN[0][8:], "flowers", "flowers-2", {None: OWN})


def test_an_image_s_own_model_needs_none(baked):
    told = source()
    assert (told.uri, told.name, told.revision, told.digests) == ("/opt/model", "iris", "iris-1111", {None: OWN})
    assert source(f"--digest={OTHER}").digests == {None: OTHER}


def test_the_model_that_the_image_has_is_not_fetched(baked):
    told = source(*GIVEN, f"--digest={OWN}")
    assert (told.uri, told.name, told.revision, told.digests) == ("/opt/model", "flowers", "flowers-2", {None: OWN})


@pytest.mark.parametrize(
    ("digests", "known"),
    [
        ([f"--digest={OTHER}"], {None: OTHER}),
        # nothing says that it is the same
        ([], {}),
        ([f"--digest=3={OWN}"], {"3": OWN}),
    ],
)
def test_another_model_is_fetched(baked, digests, known):
    told = source(*GIVEN, *digests)
    assert (told.uri, told.digests) == ("s3://models/iris", known)


def test_a_digest_that_is_none_is_refused(baked, monkeypatch):
    with pytest.raises(InvalidValue, match="digest"):
        source("--digest=abc")
