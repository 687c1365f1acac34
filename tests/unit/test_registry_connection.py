import socket
import subprocess
import sys

import pytest

from longshore.errors import InvalidValue, MissingExtra, RegistryError
from longshore.registry import Registry
from longshore.registry.connection import Connection
from longshore.spec import ModelSource


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("registry.db", "sqlite:///PATH"),
        ("/var/registry.db", "sqlite:///PATH"),
        ("file:///var/mlruns", "sqlite:///PATH"),
        ("ftp://host/x", "http(s)://HOST:PORT"),
        ("http://", "names no host"),
        ("https:///path", "names no host"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("http://[::1", "names no host"),
    ],
)
def test_a_bad_uri_is_told_at_once(uri, words):
    with pytest.raises(RegistryError) as raised:
        Registry(uri)
    assert words in str(raised.value)
    assert uri in str(raised.value)


@pytest.mark.parametrize(
    "uri", ["http://mlflow.mlflow:5000", "https://h/mlflow", "postgresql+psycopg2://h/db", "sqlite:///r.db"]
)
def test_a_good_uri_opens_nothing(uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Registry(uri)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://me:secret@h/db", "postgresql://***@h/db"),
        ("postgresql://me:se@cret@h/db", "postgresql://***@h/db"),
        ("mysql://me:se/secret@h/db", "mysql://***@h/db"),
        ("https://h/p@q", "https://h/p@q"),
    ],
)
def test_a_password_is_never_shown(uri, shown):
    assert Connection(uri).shown == shown
    assert "secret" not in repr(Connection(uri))
    assert "secret" not in repr(Registry(uri))


def test_the_default_is_the_file_in_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGSHORE_HOME", str(tmp_path / "home"))
    assert Registry().connection.file == tmp_path / "home" / "registry.db"


def test_looking_at_a_registry_that_does_not_exist_makes_nothing(tmp_path):
    registry = Registry(f"sqlite:///{tmp_path / 'deep' / 'registry.db'}")
    assert registry.champion("iris") is None
    for ask in (registry.versions, lambda name: registry.get(name, "1"), lambda name: registry.promote(name, "1")):
        with pytest.raises(RegistryError, match="no model 'iris'.*there are none"):
            ask("iris")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["No_Name", "", "a'b", "x" * 64])
def test_a_name_is_checked_before_anything_is_asked(name, tmp_path):
    registry = Registry(f"sqlite:///{tmp_path / 'registry.db'}")
    for ask in (registry.champion, registry.versions):
        with pytest.raises(InvalidValue):
            ask(name)


@pytest.mark.parametrize("package", ["mlflow", "sqlalchemy"])
def test_a_missing_package_names_the_extra(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    registry = Registry(f"sqlite:///{tmp_path / 'registry.db'}")
    source = ModelSource(uri="/m", format="sklearn", name="iris")
    with pytest.raises(MissingExtra, match=rf"{package}.*longshore\[registry\]"):
        registry.register(source, metrics={}, data_digest="", run=None)
    assert list(tmp_path.iterdir()) == []


def test_importing_the_registry_imports_no_mlflow():
    code = "import sys; from longshore.registry import RegistryRecorder as R; R(); print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("registry", "uri", "kept"),
    [
        ("http://mlflow:5000", "/models/my iris", "longshore://{host}/models/my%20iris"),
        ("http://mlflow:5000", "file:///models/iris", "longshore://{host}/models/iris"),
        ("http://mlflow:5000", "s3://models/iris", "s3://models/iris"),
        ("sqlite:///r.db", "/models/iris", "/models/iris"),
    ],
)
def test_a_server_is_told_on_which_machine_a_path_is(registry, uri, kept):
    assert Connection(registry).source(uri) == kept.format(host=socket.gethostname())
