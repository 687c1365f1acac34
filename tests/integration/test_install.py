"""A wheel, and an install into an empty environment. Builds and installs with pip from the configured index."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from longshore.images import Recipe, write_context

ROOT = Path(__file__).parents[2]


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The files that Git knows of, so that the build leaves nothing in the checkout."""
    target = tmp_path_factory.mktemp("source")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes((ROOT / name).read_bytes())
    return target


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    target = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", target, source)
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    target = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", target)
    run(target / "bin" / "python", "-m", "pip", "install", "--quiet", wheel)
    return target / "bin"


def test_the_wheel_holds_the_library_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"longshore"}
    expected = {
        "longshore/py.typed",
        *(f"longshore/images/requirements/{path.name}" for path in (ROOT / "sdk/images/requirements").glob("*.txt")),
        *(
            f"{package}/{path.relative_to(ROOT / folder).as_posix()}"
            for folder, package in (
                ("sdk", "longshore"),
                ("components", "longshore/components"),
                ("pipelines", "longshore/pipelines"),
            )
            for path in (ROOT / folder).rglob("*.py")
        ),
    }
    assert expected - names == set()
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_a_small_install_imports_and_compiles(environment, tmp_path):
    run(
        environment / "python",
        "-W",
        "error",
        "-c",
        "import longshore, longshore.components, longshore.pipelines; assert longshore.components.names()",
        cwd=tmp_path,
    )
    run(environment / "longshore", "compile", "train_and_deploy", "-o", tmp_path / "p.yaml", cwd=tmp_path)
    assert "train-and-deploy" in (tmp_path / "p.yaml").read_text()
    installed = run(environment / "python", "-m", "pip", "list", "--format=freeze").lower()
    for heavy in ("pandas", "scikit-learn", "mlflow", "fastapi", "matplotlib"):
        assert heavy not in installed


def test_a_small_install_says_what_is_missing(environment, tmp_path):
    told = run(environment / "longshore", "doctor", cwd=tmp_path)
    assert "longshore[train]" in told
    asked = subprocess.run(
        [environment / "longshore", "run", "train_and_deploy", "--local", "--set", "data=x.csv", "--set", "target=y"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "LONGSHORE_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)},
    )
    assert asked.returncode == 1
    assert "longshore[" in asked.stderr
    assert "Traceback" not in asked.stderr


def test_images_are_built_of_what_is_installed_as_of_a_checkout(environment, tmp_path):
    for image in ("fastapi", "python"):
        command = [environment / "longshore", "image", "build", image, "--context", tmp_path / image / "installed"]
        told = run(*command, cwd=tmp_path)
        assert told.splitlines()[1].startswith("podman build ")
        write_context(Recipe(image=image), tmp_path / image / "checkout")
        installed, checkout = (contents(tmp_path / image / name) for name in ("installed", "checkout"))
        assert installed == checkout


def contents(folder):
    """Files by name, those of the wheel among them; what pip writes about an install is its own."""
    found = {}
    for path in folder.iterdir():
        found[path.name] = path.read_bytes()
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as archive:
                found[path.name] = {
                    name: archive.read(name)
                    for name in archive.namelist()
                    if not name.endswith((".dist-info/METADATA", ".dist-info/RECORD"))
                }
    return found
