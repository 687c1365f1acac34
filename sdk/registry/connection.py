"""The way to MLflow: its client, made without noise, and its failures turned into sentences."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

from longshore.errors import LongshoreError, MissingExtra, RegistryError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from mlflow.tracking import MlflowClient

__all__ = ["Connection", "error_code"]

_SERVERS: Final = ("http", "https")
_DATABASES: Final = ("sqlite", "postgresql", "mysql", "mssql")

# A server that is away is told after about 10 s (two attempts of 5 s at most), not after MLflow's 7 attempts of
# 120 s each; and nothing is reported to MLflow's makers. A setting of the user's own wins.
_DEFAULTS: Final = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_NOISY: Final = ("mlflow", "alembic", "urllib3.connectionpool")


@dataclass(frozen=True)
class Connection:
    """A registry by its tracking URI; nothing is opened before it is needed.

    Args:
        uri: ``http(s)://`` of an MLflow server, or the URI of a database, such as ``sqlite:////home/me/registry.db``.

    Raises:
        RegistryError: If the URI is of no such kind.
    """

    uri: str = field(repr=False)

    def __post_init__(self) -> None:
        scheme = self.uri.partition(":")[0].partition("+")[0] if "://" in self.uri else ""
        if scheme not in (*_SERVERS, *_DATABASES):
            raise RegistryError(
                f"the model registry's URI {self.shown!r} is not valid: use http(s)://HOST:PORT of an MLflow server, "
                f"sqlite:///PATH, or the URI of another database ({', '.join(_DATABASES[1:])})"
            )
        if scheme in _SERVERS and not _host(self.uri):
            raise RegistryError(f"the model registry's URI {self.shown!r} names no host: use http(s)://HOST:PORT")
        if scheme == "sqlite" and self.file is None:
            raise RegistryError(f"the model registry's URI {self.shown!r} names no file: use sqlite:///PATH")

    @property
    def shown(self) -> str:
        """The URI for messages, without a password."""
        return re.sub(r"://([^/?#]*|[^@/:]*:[^@]*)@", "://***@", self.uri)

    @property
    def file(self) -> Path | None:
        """The SQLite file; None for servers and other databases."""
        head, _, rest = self.uri.partition(":///")
        path = rest.partition("?")[0]
        return Path(path) if head.partition("+")[0] == "sqlite" and path not in ("", ":memory:") else None

    @property
    def absent(self) -> bool:
        """Whether this is a SQLite file that does not exist yet: an empty registry."""
        return self.file is not None and not self.file.exists()

    @contextmanager
    def client(self, doing: str, *, exclusive: bool = False) -> Iterator[MlflowClient]:
        """MLflow's client; what goes wrong inside the block is raised as a :class:`RegistryError`.

        Args:
            doing: What is being done, for the message, such as ``registering model 'iris'``.
            exclusive: Keep other longshore processes from changing the SQLite file meanwhile, so that looking and
                then writing is safe. On a server each call is safe, and nothing can be kept from the others between
                two calls.

        Raises:
            RegistryError: Saying what could not be done, with which registry, why, and what to do.
            MissingExtra: If MLflow is not installed.
        """
        client_class = _import_client(database=urlsplit(self.uri).scheme not in _SERVERS)
        with _quiet(), self._told(doing):
            if exclusive:
                with self._lock():
                    yield self._connect(client_class)
            else:
                # even to look one must wait for whoever makes the tables
                with self._lock():
                    client = self._connect(client_class)
                yield client

    def told(self, error: RegistryError) -> RegistryError:
        """The same error, naming the registry."""
        return RegistryError(f"{error} (model registry {self.shown})")

    def source(self, uri: str) -> str:
        """A model's URI as it may be kept in this registry.

        A server takes no path as a version's source, for it would mean a path on the server. What is kept there
        instead says on which machine the files are, under a scheme that MLflow opens nothing by.
        """
        if urlsplit(self.uri).scheme not in _SERVERS or not ("://" not in uri or uri.startswith("file:///")):
            return uri
        path = Path(uri.removeprefix("file://")).absolute()
        return f"longshore://{socket.gethostname()}{quote(str(path))}"

    def _connect(self, client_class: type[MlflowClient]) -> MlflowClient:
        if urlsplit(self.uri).scheme not in _SERVERS:
            _try_database(self.uri)
        return client_class(tracking_uri=self.uri, registry_uri=self.uri)

    def _lock(self) -> AbstractContextManager[None]:
        if self.file is None:
            return nullcontext()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(self.file.parent, os.W_OK):
            # nobody can be making the tables there; SQLite itself says whether it can be read
            return nullcontext()
        return _flock(self.file.with_name(self.file.name + ".lock"))

    @contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        try:
            yield
        except RegistryError as error:
            raise self.told(error) from None
        except LongshoreError:
            raise
        except Exception as error:
            if not _is_registry_failure(error):
                raise
            raise RegistryError(f"{doing} failed in the model registry {self.shown}: {self._why(error)}") from error

    def _why(self, error: Exception) -> str:
        words = _first_line(error).replace(self.uri, self.shown)
        if "database is locked" in words:
            return "the file is locked by another program: end that program, or use an MLflow server for many users"
        if isinstance(error, ImportError):
            return f"the database's driver is not installed ({words}): install it with pip"
        if urlsplit(self.uri).scheme in _SERVERS:
            if "Max retries exceeded" in words or "timed out" in words:
                reason = words.rpartition("Caused by ")[2] or words
                if "error responses" in reason:
                    return f"the server fails ({reason}): see its log"
                return f"the server cannot be reached ({reason}): check that it runs and that the URI is right"
            return f"{words}: check that this is an MLflow server" if "API request to" in words else words
        if error_code(error) is None:
            return f"{words}: check that the URI is right and that the database can be opened"
        return words


def _host(uri: str) -> str | None:
    try:
        return urlsplit(uri).hostname
    except ValueError:
        return None


def error_code(error: Exception) -> str | None:
    """MLflow's code of an error, such as ``RESOURCE_DOES_NOT_EXIST``; None for what is not MLflow's."""
    code = getattr(error, "error_code", None)
    return code if isinstance(code, str) else None


def _import_client(*, database: bool) -> type[MlflowClient]:
    for key, value in _DEFAULTS.items():
        os.environ.setdefault(key, value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if database:
                # MLflow imports without it, and then knows no databases
                import sqlalchemy  # noqa: F401
            from mlflow.tracking import MlflowClient
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("mlflow", "sqlalchemy", "alembic"):
            raise
        raise MissingExtra("the model registry", package, "registry") from error
    return MlflowClient


def _try_database(uri: str) -> None:
    """Open the database once: MLflow itself tries one that cannot be opened for minutes."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
    sqlalchemy.inspect(engine).get_table_names()


def _is_registry_failure(error: Exception) -> bool:
    import requests
    from mlflow.exceptions import MlflowException

    if isinstance(error, (MlflowException, requests.RequestException, OSError, ImportError)):
        return True
    # not imported, and none of its errors possible, where the registry is a server
    return any(kind.__module__ == "sqlalchemy.exc" for kind in type(error).__mro__)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep off the user's terminal what MLflow and the libraries below it log below an error, and their warnings.

    The warnings are about MLflow's own code: who uses longshore can do nothing about them.
    """
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _flock(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
