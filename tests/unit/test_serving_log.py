"""What is logged as JSON: one object a line, whatever a message holds."""

import json
import logging
import sys

from longshore.serving.log import JsonFormatter


def line(message="ready", *values, exc_info=None, **extra):
    record = logging.makeLogRecord(
        {"name": "longshore.serving", "levelno": 40, "levelname": "ERROR", "msg": message, "args": values}
        | {"exc_info": exc_info, "created": 0.25, **extra}
    )
    text = JsonFormatter().format(record)
    assert "\n" not in text
    return json.loads(text)


def test_a_record_is_an_object():
    assert line("%s\n%d rows", "iris", 2) == {
        "time": "1970-01-01T00:00:00.250+00:00",
        "level": "error",
        "logger": "longshore.serving",
        "message": "iris\n2 rows",
    }


def test_what_is_known_of_a_request_stands_beside_it_and_nothing_else():
    content = line(request_id="a1", status=200, seconds=0.5, route=None, authorization="Bearer x")
    assert {name: content[name] for name in ("request_id", "status", "seconds", "route")} == {
        "request_id": "a1",
        "status": 200,
        "seconds": 0.5,
        "route": None,
    }
    assert "Bearer" not in json.dumps(content)


def test_an_exception_is_told_with_its_traceback():
    try:
        raise ValueError("no such\ncolumn")
    except ValueError:
        content = line(exc_info=sys.exc_info())
    assert content["exception"].endswith("ValueError: no such\ncolumn")
    assert "Traceback" in content["exception"]
