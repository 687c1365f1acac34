"""What is typed after ``--set`` becomes values of the declared types, or one clear refusal."""

from __future__ import annotations

import pytest

from longshore.cli.parameters import Parameter, closest, parse_settings, parse_value
from longshore.errors import ConfigError


def parameter(kind: str, *, required: bool = False) -> Parameter:
    return Parameter(name="p", type=kind, required=required)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("string", "a b", "a b"),
        ("string", "", ""),
        ("string", "null", "null"),
        ("string", "1", "1"),
        ("integer", "-7", -7),
        ("integer", "007", 7),
        ("integer", "null", None),
        ("number", "1e-3", 0.001),
        ("number", "2", 2.0),
        ("boolean", "True", True),
        ("boolean", "no", False),
        ("boolean", "0", False),
        ("list", '["a", 1]', ["a", 1]),
        ("list", "[]", []),
        ("object", '{"ä": {"b": null}}', {"ä": {"b": None}}),
    ],
)
def test_a_text_becomes_a_value_of_the_declared_type(kind: str, text: str, value: object) -> None:
    parsed = parse_value(text, parameter(kind))
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "takes"),
    [
        ("integer", "1.0", "a whole number"),
        ("integer", "1_000", "a whole number"),
        ("integer", "", "a whole number"),
        ("number", "nan", "a number"),
        ("number", "inf", "a number"),
        ("number", "1,5", "a number"),
        ("boolean", "maybe", "true or false"),
        ("list", '{"a": 1}', "a JSON list"),
        ("list", "a,b", "a JSON list"),
        ("object", "[1]", "a JSON object"),
        ("object", '{"a": }', "at column 7"),
    ],
)
def test_a_text_that_is_no_such_value_is_refused(kind: str, text: str, takes: str) -> None:
    with pytest.raises(ConfigError, match=takes) as refused:
        parse_value(text, parameter(kind))
    assert str(refused.value).startswith("parameter p takes ")
    assert repr(text) in str(refused.value)


def test_null_does_not_unset_what_is_required() -> None:
    with pytest.raises(ConfigError, match="a whole number, not 'null'"):
        parse_value("null", parameter("integer", required=True))


PARAMETERS = (
    Parameter(name="seed", type="integer", required=False, default=0),
    Parameter(name="test_size", type="number", required=False, default=0.2),
    Parameter(name="data", type="string", required=True),
)


def test_settings_are_parsed_by_name_and_a_value_may_contain_an_equals_sign() -> None:
    assert parse_settings(["seed=3", "data=a=b"], PARAMETERS) == {"seed": 3, "data": "a=b"}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["seed"], "write NAME=VALUE"),
        (["sed=1"], r"no parameter 'sed': did you mean seed\?"),
        (["testsize=1"], r"did you mean test_size\?"),
        (["xyzzy=1"], "there is seed, test_size, data"),
        (["seed=1", "seed=2"], "seed is set twice"),
        (["=1"], "no parameter ''"),
    ],
)
def test_wrong_settings_are_refused(settings: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_settings(settings, PARAMETERS)


def test_without_any_known_name_there_is_none() -> None:
    assert closest("a", []) == "there is none"
