"""Options, database addresses and the queue of the Django face; no server and no database."""

import threading
import time
from pathlib import Path

import pytest

from longshore.errors import ConfigError, InvalidValue
from longshore.serving.django_app.cells import as_cell
from longshore.serving.django_app.database import connection_settings
from longshore.serving.django_app.options import DjangoOptions
from longshore.serving.django_app.settings import make_settings
from longshore.serving.django_app.writer import Unavailable, Writer


def read(**environment: str) -> DjangoOptions:
    return DjangoOptions.from_environment({f"LONGSHORE_DJANGO_{name}": text for name, text in environment.items()})


def test_the_environment_says_the_options(tmp_path):
    (tmp_path / "key").write_text("k" * 40 + "\n")
    options = read(
        DATA_DIR=str(tmp_path),
        SECRET_KEY_FILE=str(tmp_path / "key"),
        ALLOWED_HOSTS="a.example, .example.org",
        SECURE="yes",
        LOG_SHARE="0.5",
        LOG_ROWS="none",
        LOG_DAYS="7",
        ADMIN="",
    )
    assert options == DjangoOptions(
        data_dir=tmp_path,
        secret_key="k" * 40,
        allowed_hosts=("a.example", ".example.org"),
        secure=True,
        log_share=0.5,
        log_rows=None,
        log_days=7.0,
    )
    assert "k" * 40 not in repr(options)
    assert {"localhost", "127.0.0.1", "a.example"} <= set(options.hosts)


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"DATABASE": "x"}, "LONGSHORE_DJANGO_DATABASE is no option"),
        ({"SECURE": "maybe"}, "LONGSHORE_DJANGO_SECURE = 'maybe' is not valid"),
        ({"LOG_ROWS": "many"}, "LONGSHORE_DJANGO_LOG_ROWS = 'many' is not valid"),
        ({"LOG_ROWS": "0"}, "log_rows = 0 is not valid"),
        ({"LOG_SHARE": "nan"}, "log_share = nan is not valid"),
        ({"ALLOWED_HOSTS": "a b"}, "allowed_hosts = 'a b' is not valid"),
        ({"TRUSTED_ORIGINS": "example.org"}, "trusted_origins = 'example.org' is not valid"),
        ({"ADMIN_USER": "me"}, "a user and its password"),
        ({"SECRET_KEY_FILE": "/nowhere/at/all"}, "/nowhere/at/all that LONGSHORE_DJANGO_SECRET_KEY_FILE names"),
        ({"SECRET_KEY": "a" * 40, "SECRET_KEY_FILE": __file__}, "set both by itself and as a file"),
    ],
)
def test_what_is_no_option_is_refused_by_name(environment, why):
    with pytest.raises(ConfigError) as caught:
        read(**environment)
    assert why in str(caught.value)


def test_a_short_secret_key_is_refused_and_not_repeated():
    with pytest.raises(InvalidValue) as caught:
        DjangoOptions(secret_key="hunter2")
    assert "hunter2" not in str(caught.value)


def test_a_database_url_is_taken_apart():
    told = connection_settings(
        DjangoOptions(database_url="postgresql://u%40x:p%2Fw@db.example:6432/logs?sslmode=verify-full")
    )
    assert (told["USER"], told["PASSWORD"], told["HOST"], told["PORT"]) == ("u@x", "p/w", "db.example", 6432)
    assert told["NAME"] == "logs"
    assert told["OPTIONS"]["sslmode"] == "verify-full"
    assert connection_settings(DjangoOptions(database_url="sqlite:////data/a.db"))["NAME"] == "//data/a.db"
    assert connection_settings(DjangoOptions(data_dir=Path("/d")))["NAME"] == "/d/django.db"


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:s3cret@h/n",
        "postgres://u:s3cret@h",
        "postgres://u:s3cret@h:port/n",
        "postgres://u:s3cret@h/n?passfile=x",
        "s3cret",
    ],
)
def test_a_wrong_database_url_is_refused_and_not_repeated(url):
    with pytest.raises(InvalidValue) as caught:
        connection_settings(DjangoOptions(database_url=url))
    assert "s3cret" not in str(caught.value)


def test_the_settings_are_safe(tmp_path):
    first = make_settings(DjangoOptions(data_dir=tmp_path / "new"))
    again = make_settings(DjangoOptions(data_dir=tmp_path / "new"))
    assert first["SECRET_KEY"] == again["SECRET_KEY"]
    assert len(first["SECRET_KEY"]) >= 50
    assert first["DEBUG"] is False
    assert "*" not in first["ALLOWED_HOSTS"]
    assert not first["SESSION_COOKIE_SECURE"]
    secure = make_settings(DjangoOptions(data_dir=tmp_path / "new", secure=True))
    assert secure["SESSION_COOKIE_SECURE"]
    assert secure["CSRF_COOKIE_SECURE"]
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="LONGSHORE_DJANGO_DATA_DIR"):
        make_settings(DjangoOptions(data_dir=tmp_path / "file" / "below"))


@pytest.mark.parametrize(
    ("value", "cell"),
    [("=1+1", "'=1+1"), ("@x", "'@x"), ("plain", "plain"), (-3, -3), (None, None), (["=1"], '["=1"]')],
)
def test_a_cell_is_no_formula(value, cell):
    assert as_cell(value) == cell


class Counts:
    def __init__(self):
        self.written = self.dropped = 0
        self.changed = threading.Condition()

    def __call__(self, written, dropped):
        with self.changed:
            self.written += written
            self.dropped += dropped
            self.changed.notify_all()

    def wait(self, condition):
        with self.changed:
            assert self.changed.wait_for(lambda: condition(self), 20)


def writer_of(write, counts, **options):
    return Writer("rows", write, size=len, count=counts, retry_seconds=(0.01, 0.02), **options)


def test_what_is_put_is_written_in_order_and_together():
    batches, counts = [], Counts()
    writer = writer_of(lambda batch: batches.append(list(batch)) or 0, counts, batch=4)
    for number in range(10):
        writer.put(f"{number}")
    writer.start()
    counts.wait(lambda seen: seen.written == 10)
    writer.close()
    assert batches == [list("0123"), list("4567"), list("89")]
    assert counts.dropped == 0


def test_a_full_queue_drops_what_comes_last_and_counts_it():
    counts = Counts()
    writer = writer_of(lambda _: 0, counts, items=3)
    for number in range(5):
        writer.put(f"{number}")
    assert counts.dropped == 2
    heavy = writer_of(lambda _: 0, counts, bytes_=10)
    heavy.put("a" * 8)
    heavy.put("b" * 8)
    assert counts.dropped == 3


def test_nothing_is_lost_while_it_cannot_be_written(caplog):
    counts, seen, away = Counts(), [], threading.Event()
    tried = threading.Semaphore(0)
    away.set()

    def write(batch):
        tried.release()
        if away.is_set():
            raise Unavailable("gone")
        seen.extend(batch)
        return 0

    writer = writer_of(write, counts)
    writer.start()
    writer.put("a")
    for _ in range(4):
        assert tried.acquire(timeout=20)
    writer.put("b")
    away.clear()
    counts.wait(lambda counted: counted.written == 2)
    writer.close()
    assert seen == ["a", "b"]
    assert [record.message for record in caplog.records if "for now" in record.message] == [
        "rows cannot be written for now, and are answered: gone"
    ]


def test_what_cannot_be_written_at_all_is_dropped_and_the_rest_goes_on(caplog):
    counts = Counts()

    def write(batch):
        if "bad" in batch:
            raise ValueError("no such thing")
        return 0

    writer = writer_of(write, counts, batch=1)
    for text in ("a", "bad", "b"):
        writer.put(text)
    writer.start()
    counts.wait(lambda seen: seen.written + seen.dropped == 3)
    writer.close()
    assert (counts.written, counts.dropped) == (2, 1)
    assert "writing rows failed" in caplog.text


def test_the_end_writes_what_waits_and_takes_no_longer_than_it_may():
    counts, stuck = Counts(), threading.Event()
    writer = writer_of(lambda _: 0, counts)
    writer.start()
    writer.put("a")
    writer.close()
    assert counts.written == 1
    writer.put("late")
    assert counts.dropped == 1

    blocked = writer_of(lambda _: stuck.wait(30) and 0, counts)
    blocked.start()
    blocked.put("b")
    began = time.monotonic()
    blocked.close(0.2)
    assert time.monotonic() - began < 10
    assert counts.dropped == 2
    stuck.set()
