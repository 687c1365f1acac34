"""Longshore's images: built by its own command, run by podman with nothing that they could write to.

They are those of the real nodes, and are built by ``make cluster-parts``. Requests are sent from within a container's
own network, which has no way out.
"""

import contextlib
import json
import re
import subprocess
import sys
import zipfile

import pytest
import requests
from harness import builds
from harness.containers import CONTAINER_COMMANDS, first_process, inspect_image, mounted, podman, running
from harness.images import BUILD_OPTIONS, LONGSHORE_IMAGES, Images, longshore_image, shown_to_pip
from harness.penguins import PENGUINS, ROW
from harness.serving import INFER, IRIS, PREDICT, ROWS, Asking, refused, wait_for
from harness.system import Missing, free_port, need_commands, need_root

from longshore.errors import ImageError
from longshore.images import push_image
from longshore.packaging import save_model
from longshore.training.data import read_table
from longshore.training.fit import train_sklearn

FACES = ("fastapi", "flask", "django")
PREDICT_PENGUINS = "/v1/models/penguins:predict"


@pytest.fixture(scope="session")
def images():
    """What builds images, where that can be."""
    try:
        need_root()
        need_commands(CONTAINER_COMMANDS)
    except Missing as error:
        pytest.skip(str(error))
    return Images()


@pytest.fixture(scope="session")
def image(images):
    """The name of one of longshore's images, which is there."""

    def named(name):
        try:
            return images.need(longshore_image(name))
        except Missing as error:
            pytest.skip(str(error))

    return named


@pytest.fixture
def run(image, iris_model, tmp_path):
    """Run a server's image with the model of iris."""

    def start(name, *arguments, options=()):
        given = ["--model=/mnt/model", "--name=iris", "--revision=iris-1", *arguments]
        options = [f"--volume={iris_model}:/mnt/model:ro", *options]
        return running(image(name), tmp_path / "log", *given, options=options)

    return start


@pytest.mark.usefixtures("images")
def test_room_is_made_though_a_build_was_killed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    images = Images()

    def buildah(*words):
        done = subprocess.run(["buildah", *words], env=images.environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    image = buildah("commit", "--quiet", buildah("from", "scratch"))
    try:
        assert buildah("mount", buildah("from", image))
        images.make_room([{"lock.txt": b"another"}])
        assert buildah("images", "--all", "--quiet") == ""
    finally:
        buildah("rm", "--all")


def answers(server):
    row = dict(zip(IRIS, ROWS[0], strict=True))
    answer = server.ask(lambda: server.post(PREDICT, {"instances": [row]}))
    assert answer.json()["predictions"] == [0]
    inputs = [{"name": "x", "shape": [2, 4], "datatype": "FP64", "data": ROWS}]
    answer = server.ask(lambda: server.post(INFER, {"inputs": inputs}))
    assert answer.json()["outputs"][0]["data"] == [0, 2]


def has_nothing_to_write_to(server):
    process = first_process(server)
    assert process["Uid"] == ["1000"] * 4
    assert process["CapEff"] == ["0" * 16]
    told = server.run("sh", "-c", "for place in /opt /home/longshore /tmp; do touch $place/x 2>&1 || true; done")
    assert told.count("Read-only file system") == 2


@pytest.mark.parametrize("name", FACES)
def test_a_server_answers_without_root_and_loses_no_request_when_it_is_told_to_end(run, name):
    with run(name) as server:
        answers(server)
        has_nothing_to_write_to(server)
        # libraries that models are of, beside one another
        server.run("python", "-c", "import lightgbm, onnxruntime, sklearn, xgboost")
        with Asking(server) as asking:
            asking.wait_for(50)
            server.process.terminate()
            assert server.process.wait(30) == 0, server.log.read_text()
    assert asking.failures == []


def test_kserve_s_server_answers_without_root_and_ends_when_it_is_told_to(run):
    # it cuts off who connects meanwhile: its pods pause before
    with run("kserve") as server:
        answers(server)
        has_nothing_to_write_to(server)


def test_any_user_will_do_and_several_workers(run):
    # as OpenShift runs it, and with the server that writes the most
    with run("django", "--workers=2", options=["--user=1000730000:0"]) as server:
        assert first_process(server)["Uid"] == ["1000730000"] * 4
        answer = server.ask(lambda: server.post(PREDICT, {"instances": [dict(zip(IRIS, ROWS[1], strict=True))]}))
        assert answer.json()["predictions"] == [2]


def test_one_that_is_told_to_end_before_it_serves_ends(image, tmp_path):
    command = ["podman", "run", "--rm", "--network=none", image("fastapi"), "--model=/mnt/nothing"]
    command += ["--name=iris", "--revision=iris-1"]
    done = subprocess.run(command, env=Images().environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "/mnt/nothing: no such directory" in done.stderr


@pytest.mark.parametrize("name", LONGSHORE_IMAGES)
def test_an_image_holds_what_it_needs_and_nothing_of_the_machine_that_built_it(image, name):
    told = inspect_image(image(name))
    config = told["Config"]
    assert config["User"] == "1000:1000"
    assert config["Labels"]["org.opencontainers.image.title"] == f"longshore-{name}"
    assert ("Healthcheck" in told) == (name != "python")
    assert not [each for each in config["Env"] if re.match(r"PIP_|.*(CERT|INDEX|PROXY|TOKEN)", each, re.IGNORECASE)]
    with mounted(image(name)) as root:
        for place in ("etc/pip.conf", "root/.config", "root/.cache", "build", "run/secrets"):
            assert not (root / place).exists() or not list((root / place).iterdir())
        (packages,) = (root / "opt" / "longshore" / "lib").glob("python3*/site-packages")
        assert (packages / "longshore" / "spec" / "image.py").exists()
        (outside,) = (root / "usr" / "local" / "lib").glob("python3*/site-packages")
        assert (outside / "pip").exists() == (name == "python")
        assert not (packages / "pip").exists()
        for path in (root / "opt").rglob("*"):
            status = path.lstat()
            assert (status.st_uid, status.st_gid) == (0, 0), path
            assert path.is_symlink() or not status.st_mode & 0o022, path
            assert path.name != "tests" or not path.is_dir(), path
        for path in (packages / "longshore").rglob("*.py"):
            compiled = next(path.parent.glob(f"__pycache__/{path.stem}.cpython-*.pyc")).read_bytes()
            # counts by itself, whatever date the source has: PEP 552
            assert compiled[4:8] == b"\1\0\0\0", path


def test_a_step_s_own_packages_go_into_its_home(image, library):
    install = "python3 -m pip install --quiet --no-warn-script-location --no-index"
    script = f"{install} /mnt/{library.name} && python3 -c 'import house_rules, longshore, kfp'"
    options = ["--rm", "--network=none", f"--volume={library}:/mnt/{library.name}:ro"]
    assert podman("run", *options, image("python"), "sh", "-c", script) == ""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A wheel with an estimator of one's own."""
    path = tmp_path_factory.mktemp("library") / "house_rules-1.0-py3-none-any.whl"
    code = "from sklearn.dummy import DummyRegressor\n\n\nclass Rule(DummyRegressor):\n    pass\n"
    files = {
        "house_rules.py": code,
        # as PyTorch has them
        "house_rules_of_newer_pythons.py": "def first[T](of: list[T]) -> T:\n    return of[0]\n",
        "house_rules-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: house-rules\nVersion: 1.0\n",
        "house_rules-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files["house_rules-1.0.dist-info/RECORD"] = "".join(f"{name},,\n" for name in files)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def rules(library, tmp_path, monkeypatch):
    """A model of that estimator: its directory and digest."""
    monkeypatch.syspath_prepend(str(library))
    trained = train_sklearn(
        read_table(str(PENGUINS)),
        target="body_mass_g",
        estimator="house_rules.Rule",
        parameters={"strategy": "constant", "constant": 7.0},
        task="regression",
    )
    directory = tmp_path / "penguins" / "3"
    return directory, save_model(directory, trained.model, trained.card)


def build(*words, env=None):
    command = [sys.executable, "-m", "longshore.cli", "image", "build", *words, *shown_to_pip(), "--", *BUILD_OPTIONS]
    env = {**Images().environment, **(env or {})}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


class Registry:
    """A registry that has nothing yet; it answers within :meth:`running`.

    Attributes:
        address: Where.
        environment: What has podman talk to it.
    """

    def __init__(self, folder):
        self.address, self._layers = f"127.0.0.1:{free_port()}", folder / "layers"
        self._layers.mkdir()
        settings = folder / "registries.conf"
        settings.write_text(f'[[registry]]\nlocation = "{self.address}"\ninsecure = true\n')
        self.environment = {"CONTAINERS_REGISTRIES_CONF": str(settings)}

    @contextlib.contextmanager
    def running(self):
        with subprocess.Popen([builds.built("images") / "registry", self.address, self._layers]) as process:
            try:
                wait_for(lambda: not refused(f"http://{self.address}"))
                yield
            finally:
                process.terminate()

    def manifest(self, repository, tag):
        accept = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
        url = f"http://{self.address}/v2/{repository}/manifests/{tag}"
        answer = requests.get(url, headers=accept, timeout=30)
        answer.raise_for_status()
        return answer.json()


@pytest.fixture
def registry(image, tmp_path):
    image("fastapi")
    return Registry(tmp_path)


def test_a_model_with_a_library_of_its_own_is_served_from_within_the_image(registry, library, rules, tmp_path):
    directory, digest = rules
    words = ["fastapi", f"--model={directory}", f"--digest={digest}", "--builder=podman", '--label=note=a "b" $c']
    failed = build(*words)
    assert failed.returncode == 1
    assert "needs the module 'house_rules'" in failed.stderr.splitlines()[-1]
    assert "--pip PACKAGE" in failed.stderr.splitlines()[-1]

    words += [f"--pip={library}", f"--registry={registry.address}/team", "--push", "--json"]
    with registry.running():
        built = build(*words, env=registry.environment)
        assert built.returncode == 0, built.stderr
        pushed = registry.manifest("team/penguins", "3")
    tag = f"{registry.address}/team/penguins:3"
    told = json.loads(built.stdout)
    assert (told["tags"], told["id"]) == ([tag], pushed["config"]["digest"])
    labels = inspect_image(tag)["Config"]["Labels"]
    assert (labels["dev.longshore.model.digest"], labels["note"]) == (digest, 'a "b" $c')
    body = {"instances": [ROW]}
    try:
        # no volume, no argument, no network
        with running(tag, tmp_path / "log") as server:
            assert server.ask(lambda: server.post(PREDICT_PENGUINS, body)).json()["predictions"] == [7]
            absent = "import importlib.util as u; print([n for n in ('xgboost', 's3fs') if u.find_spec(n)])"
            assert server.run("python", "-c", absent) == "[]"
        # as a deploy has it, which knows nothing of that
        given = ["--model=s3://models/penguins/3", f"--digest={digest}", "--name=penguins", "--revision=penguins-x"]
        with running(tag, tmp_path / "log", *given) as server:
            assert server.ask(lambda: server.post(PREDICT_PENGUINS, body)).json()["predictions"] == [7]
            assert "s3://models/penguins/3 is here as /opt/model" in server.log.read_text()
    finally:
        podman("rmi", tag)


def test_an_image_is_pushed_or_the_registry_s_words_are_told(registry, monkeypatch):
    tag = f"{registry.address}/team/pause:1"
    for name, value in {**Images().environment, **registry.environment}.items():
        monkeypatch.setenv(name, value)
    podman("tag", "registry.local/pause:1", tag)
    try:
        with pytest.raises(ImageError, match=f"podman could not push {tag}: .*connection refused"):
            push_image(tag, builder="podman")
        with registry.running():
            push_image(tag, builder="podman")
            assert registry.manifest("team/pause", "1")["layers"]
    finally:
        podman("rmi", tag)
