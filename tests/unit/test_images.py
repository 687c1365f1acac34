"""Images: what a recipe takes, the Dockerfile and the locks that come of it, the builder's command and its words."""

import base64
import configparser
import hashlib
import importlib.metadata
import io
import os
import re
import shlex
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import longshore
from longshore.cli import app, names
from longshore.errors import ConfigError, DigestMismatch, ImageError, InvalidValue, ModelError
from longshore.images import (
    FORMATS,
    STORES,
    BakedModel,
    BuiltImage,
    Recipe,
    build_command,
    build_image,
    dockerfile,
    find_builder,
    read_model,
    read_packages,
    wheel,
    write_context,
)
from longshore.images.advice import advice, reason
from longshore.images.locks import locks_of
from longshore.packaging import directory_digest
from longshore.serving import health
from longshore.spec.image import IMAGES, image_name

ROOT = Path(__file__).parents[2]
DIGEST = "sha256:" + "0" * 64
MODEL = BakedModel(directory=Path("somewhere"), name="iris", digest=DIGEST, extras=("onnx",))


def locked(text: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9.-]+)==", text, re.MULTILINE))


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_what_its_extra_asks_for_in_locked_versions(image):
    locks = locks_of(image, Recipe(image=image).brings)
    have = locked(locks.models) | locked(locks.libraries)
    assert locked(locks.models) & locked(locks.libraries) == set()
    assert {"numpy", "pandas", "scikit-learn", "onnxruntime"} <= locked(locks.models)
    extras = configparser.ConfigParser()
    extras.read(ROOT / "setup.cfg", encoding="utf-8")
    for line in (
        extras["options.extras_require"].get({"fastapi": "serve", "python": "all"}.get(image, image), "").split("\n")
    ):
        if line and not line.startswith("longshore["):
            assert canonicalize_name(Requirement(line).name) in have, f"run 'make lock': {line} is not locked"
    # each has its digests
    for entry in re.split(r"^(?=\S)", locks.models + locks.libraries + locks.build, flags=re.MULTILINE)[1:]:
        assert re.fullmatch(r"[a-z0-9.-]+==[^\n]+ \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+", entry), entry
    assert "://" not in locks.models + locks.libraries


def test_servers_have_no_pipelines_and_kserve_no_stores():
    for image in ("fastapi", "flask", "django"):
        have = locked(locks_of(image, (*FORMATS, *STORES)).libraries)
        assert have & {"kfp", "kubernetes", "rich", "mlflow-skinny", "matplotlib", "pyarrow"} == set()
        assert have >= {"s3fs", "gcsfs", "adlfs", "uvicorn", "gunicorn", "grpcio"}
    assert locked(locks_of("kserve", FORMATS).libraries) & {"s3fs", "gcsfs", "adlfs", "kfp"} == set()
    assert {"kfp", "mlflow-skinny", "s3fs"} <= locked(locks_of("python", ()).libraries)


def test_images_share_the_layer_of_what_models_are_of():
    first = dockerfile(Recipe(image="fastapi"))
    for image in ("flask", "django", "kserve", "python"):
        assert locks_of(image, FORMATS).models == locks_of("fastapi", FORMATS).models
        other = dockerfile(Recipe(image=image))
        for piece in (r"FROM \S+ AS models.*?\n\n", r"FROM \S+\n.*?COPY --from=models[^\n]+"):
            assert re.search(piece, other, re.DOTALL)[0] == re.search(piece, first, re.DOTALL)[0]


def test_what_a_user_adds_takes_the_place_of_what_is_locked():
    added = read_packages(["Scikit_Learn==1.6.1", "catboost>=1.2"])
    recipe = Recipe(image="fastapi", packages=added)
    locks = locks_of("fastapi", recipe.brings, without=added.names)
    assert "scikit-learn" not in locked(locks.models)
    assert "scikit-learn" not in locks.constraints
    assert re.search(r"^numpy==[0-9.]+$", locks.constraints, re.MULTILINE)
    assert "--hash" not in locks.constraints
    assert "\\" not in locks.constraints
    assert "--constraint constraints.txt --requirement added.txt" in dockerfile(recipe)
    assert "COPY --from=added" not in dockerfile(Recipe(image="fastapi"))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"image": "tornado"}, "fastapi, flask"),
        ({"image": "fastapi", "base": "python:3.11 AS x"}, "base"),
        ({"image": "fastapi", "base": "--privileged"}, "base"),
        ({"image": "fastapi", "base": "python\nRUN evil"}, "base"),
        ({"image": "fastapi", "platform": "linux/arm64,linux/amd64"}, "platform"),
        ({"image": "fastapi", "platform": "windows/amd64"}, "platform"),
        ({"image": "fastapi", "registry": "https://registry.example"}, "registry"),
        ({"image": "fastapi", "extras": ["torch"]}, "xgboost, lightgbm, onnx, s3"),
        ({"image": "python", "extras": ["s3"]}, "has all"),
        ({"image": "python", "model": MODEL}, "told its models"),
        ({"image": "seldon", "model": MODEL}, "told its models"),
        ({"image": "fastapi", "model": replace(MODEL, extras=("torch",))}, "take that"),
        ({"image": "fastapi", "labels": {"a b": "c"}}, "label"),
        ({"image": "fastapi", "labels": {"a": "c\nRUN evil"}}, "printable"),
        ({"image": "fastapi", "pip_conf": Path("/nowhere")}, "pip_conf"),
    ],
)
def test_what_breaks_a_rule_reaches_no_dockerfile(fields, told):
    with pytest.raises(InvalidValue, match=told):
        Recipe(**fields)


@pytest.mark.parametrize("name", ["Iris", "a b", "x\ny", "-x"])
def test_a_model_s_name_is_one_that_paths_can_have(name):
    with pytest.raises(InvalidValue):
        BakedModel(directory=Path(), name=name, digest=DIGEST)


def test_labels_are_quoted():
    text = dockerfile(Recipe(image="fastapi", labels={"org.example.note": 'a "b" $HOME \\'}))
    assert r'org.example.note="a \"b\" \$HOME \\"' in text


def test_a_baked_model_brings_its_own_libraries_only():
    recipe = Recipe(image="fastapi", model=MODEL)
    assert recipe.brings == ("onnx",)
    assert Recipe(image="fastapi", model=MODEL, extras=["s3"]).brings == ("s3",)
    text = dockerfile(recipe)
    assert "COPY model /opt/model" in text
    assert f'LONGSHORE_MODEL_DIGEST="{DIGEST}"' in text
    # checked in the image itself, as who it runs as
    assert text.index("USER 1000:1000") < text.index('RUN ["python", "-m", "longshore.serving", "--check"]')
    # whose OpenMP nobody needs
    assert "LD_LIBRARY_PATH" not in text


def test_settings_of_pip_are_mounted_and_not_copied(tmp_path):
    conf = tmp_path / "pip.conf"
    conf.write_text("[global]\nindex-url = https://user:secret@pypi.example/simple\n")
    recipe = Recipe(image="fastapi", pip_conf=conf, ca_bundle=conf)
    text = dockerfile(recipe)
    assert text.count("--mount=type=secret,id=pip.conf,target=/etc/pip.conf") == 2
    assert text.count("--cert /run/secrets/ca.crt") == 2
    write_context(recipe, tmp_path / "context")
    for path in (tmp_path / "context").iterdir():
        assert b"pypi.example" not in path.read_bytes()


@pytest.mark.parametrize(
    "given",
    [
        "-r evil.txt",
        "--index-url=http://x",
        "a b",
        "",
        "../x",
        "catboost; rm -rf /",
        "x @ https://u:p@h/x.tar.gz",
        "x.whl",
    ],
)
def test_what_is_no_package_is_refused(given):
    with pytest.raises(InvalidValue) as refused:
        read_packages([given])
    assert "u:p" not in str(refused.value)


def test_packages_come_by_name_as_files_and_from_lists(tmp_path):
    own = tmp_path / "own_lib-1.0-py3-none-any.whl"
    own.write_bytes(b"")
    listed = tmp_path / "list.txt"
    listed.write_text(f"# ours\ncatboost==1.2.8 \\\n    --hash=sha256:{'0' * 64}\nimbalanced-learn # yes\n\n")
    packages = read_packages(["Foo[bar]>=1; python_version > '3'", str(own)], [listed])
    assert packages.names == {"foo", "own-lib", "catboost", "imbalanced-learn"}
    assert packages.archives == (own,)
    recipe = Recipe(image="fastapi", packages=packages)
    write_context(recipe, tmp_path / "context")
    assert (tmp_path / "context" / "packages" / own.name).exists()
    added = (tmp_path / "context" / "added.txt").read_text().splitlines()
    assert added[-1] == f"./packages/{own.name}"
    assert any(line.startswith("catboost==1.2.8") and "--hash=sha256:" in line for line in added)
    with pytest.raises(InvalidValue, match="list.txt"):
        listed.write_text("--index-url https://x\n")
        read_packages([], [listed])
    with pytest.raises(ConfigError, match="cannot be read"):
        read_packages([], [tmp_path / "none.txt"])


def test_the_wheel_is_the_code_that_runs(tmp_path):
    content = wheel.wheel()
    assert content == wheel.wheel()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert files["longshore/spec/image.py"] == (ROOT / "sdk" / "spec" / "image.py").read_bytes()
    assert "longshore/components/deploy/deploy_model.py" in files
    assert "longshore/pipelines/train_and_deploy.py" in files
    assert "longshore/images/requirements/lock.txt" in files
    info = f"longshore-{longshore.__version__}.dist-info"
    assert {f"{info}/{name}" for name in ("METADATA", "WHEEL", "entry_points.txt", "licenses/LICENSE")} <= set(files)
    assert not any("__pycache__" in name for name in files)
    for line in files[f"{info}/RECORD"].decode().splitlines():
        name, digest, size = line.rsplit(",", 2)
        if name != f"{info}/RECORD":
            expected = base64.urlsafe_b64encode(hashlib.sha256(files[name]).digest()).rstrip(b"=").decode()
            assert (digest, int(size)) == (f"sha256={expected}", len(files[name]))
    # pip's own reader takes it
    (tmp_path / wheel.WHEEL).write_bytes(content)
    (found,) = importlib.metadata.distributions(path=[str(tmp_path / wheel.WHEEL)])
    assert found.version == longshore.__version__


def test_files_of_another_version_than_what_is_installed_are_told(monkeypatch):
    monkeypatch.setattr(wheel, "__version__", "9.9.9")
    with pytest.raises(ConfigError, match=r"9\.9\.9, and .* is installed"):
        wheel.wheel()


def test_the_same_recipe_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_context(Recipe(image="python"), tmp_path / name)
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("a", "b"))
    assert first == second
    assert set(first) == {"Dockerfile", "build.txt", "libraries.txt", "models.txt", wheel.WHEEL}
    with pytest.raises(ConfigError, match="is not empty"):
        write_context(Recipe(image="python"), tmp_path / "a")


def test_a_model_is_checked_and_copied(constant_models, tmp_path):
    source = constant_models(1)
    with pytest.raises(DigestMismatch):
        read_model(source.uri, tmp_path, name="penguins", digest=DIGEST)
    model = read_model(source.uri, tmp_path, name="penguins")
    assert (model.digest, model.extras) == (source.digest, ())
    assert model.revision == f"penguins-{source.digest[7:15]}"
    write_context(Recipe(image="flask", model=model), tmp_path / "context")
    assert directory_digest(tmp_path / "context" / "model") == source.digest
    with pytest.raises(ModelError, match="holds the versions 1"):
        read_model(str(Path(source.uri).parent), tmp_path, name="penguins")


@pytest.mark.parametrize("name", ["podman", "buildah", "docker"])
def test_the_command_of_each_builder(name, tmp_path):
    conf = tmp_path / "pip.conf"
    conf.touch()
    recipe = Recipe(image="flask", platform="linux/arm64", pip_conf=conf)
    command = build_command(recipe, ["registry.example/team/x:1"], name, "context", ["--network=host"])
    assert command[:2] == [name, "build"]
    assert command[-2:] == ["--network=host", "context"]
    assert {"--tag=registry.example/team/x:1", "--platform=linux/arm64", f"--secret=id=pip.conf,src={conf}"} <= set(
        command
    )
    # else they would drop the health check
    assert ("--format=docker" in command) == (name != "docker")
    for tags in ([], ["--privileged"], ["a b"]):
        with pytest.raises(InvalidValue):
            build_command(recipe, tags, name, "context")


def test_a_builder_that_is_not_there_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="none of podman, buildah and docker is installed here"):
        find_builder()
    (tmp_path / "docker").write_text("#!/bin/sh\n")
    (tmp_path / "docker").chmod(0o755)
    assert find_builder() == "docker"
    with pytest.raises(ConfigError, match="podman is not installed here"):
        find_builder("podman")


def fake(folder: Path, script: str) -> None:
    (folder / "podman").write_text(f"#!{sys.executable}\nimport sys\n{script}\n")
    (folder / "podman").chmod(0o755)


def test_a_failure_is_told_in_the_builder_s_words(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    lines = ["STEP 1/3: FROM x", "ERROR: No matching distribution found for numpy==2.4.6", "Error: exit status 1"]
    fake(tmp_path, f"print({chr(10).join(lines)!r}); sys.exit(7)")
    seen = []
    with pytest.raises(ImageError) as failure:
        build_image(Recipe(image="fastapi"), ["x:1"], on_line=seen.append)
    assert seen == lines
    assert "podman could not build x:1: ERROR: No matching distribution found for numpy==2.4.6" in str(failure.value)
    assert "--pip-conf FILE" in str(failure.value)


BUILDS = """
if sys.argv[1] == "images":
    print("123 MB")
else:
    (place,) = [word.partition("=")[2] for word in sys.argv if word.startswith("--iidfile=")]
    open(place, "w").write("ab" * 32)
"""


def test_what_was_built_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    fake(tmp_path, BUILDS)
    built = build_image(Recipe(image="fastapi"), ["x:1", "x:2"])
    assert built == BuiltImage(tags=("x:1", "x:2"), id=f"sha256:{'ab' * 32}", size="123 MB", builder="podman")


def test_how_it_is_run_is_told(capsys, monkeypatch, tmp_path, constant_models):
    monkeypatch.setenv("PATH", str(tmp_path))
    fake(tmp_path, BUILDS)
    run_it = "podman run --rm --read-only --tmpfs /tmp -p 127.0.0.1:8080:8080"
    model, flask = constant_models(1).uri, image_name("flask")
    given = "--model /mnt/model --name NAME --revision NAME-1"
    for words, told in (
        (["flask"], [f"{run_it} -v ./MODEL:/mnt/model:ro {flask} {given}"]),
        (["flask", "--model", model], [f"{run_it} localhost/{names.model_name(model)}:1"]),
        # these are told what they run when they run
        (["seldon"], []),
        (["python"], []),
    ):
        status, out, _ = run(capsys, *words)
        assert (status, out.splitlines()[1:]) == (0, told)
        assert out.startswith("Built ")


@pytest.mark.parametrize(
    ("line", "todo"),
    [
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", "start Docker"),
        ("ERROR: BuildKit is enabled but the buildx component is missing or broken.", "buildx"),
        ("write /x: no space left on device", "make room"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "mirror"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", "--ca-bundle"),
        ("ERROR: ResolutionImpossible: for help visit", "--pip"),
        (
            "/opt/model could not be loaded: it needs the module 'catboost', which is not installed here",
            "--pip PACKAGE",
        ),
        ("the model /opt/model needs the package 'xgboost': pip install", "--extras"),
        ("Error: writing blob: unauthorized: authentication required", "log in"),
        ("Error: initializing source docker://registry.example/x: pinging container registry", "--base"),
        ("exec /bin/sh: exec format error", "qemu"),
        ("/usr/bin/python3: No module named venv", "pip and venv"),
    ],
)
def test_what_to_do_is_told(line, todo):
    assert todo in advice(["STEP 3", line])
    assert line.strip() in reason(["STEP 3", line, "", "exit status 1"])


def test_a_failure_without_words_is_told_too():
    assert reason([]) == "it says nothing"
    assert advice(["well"]) is None


@pytest.mark.parametrize(
    ("place", "name", "version"),
    [
        ("/home/me/models/penguins/3", "penguins", "3"),
        ("s3://models/Penguins_v2", "penguins-v2", None),
        ("/7", "model", "7"),
        ("/data/___", "model", None),
    ],
)
def test_a_directory_names_its_model(place, name, version):
    assert (names.model_name(place), names.version_of(place)) == (name, version)


def run(capsys, *words):
    status = app.run(["image", "build", *words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_command_prints_and_writes(capsys, constant_models, tmp_path):
    assert run(capsys, "fastapi", "--print") == (0, dockerfile(Recipe(image="fastapi")), "")
    status, out, _ = run(
        capsys, "flask", "--model", constant_models(1).uri, "--registry", "registry.example/team",
        "--context", str(tmp_path / "context"), "--builder", "buildah", "--", "--network=host",
    )  # fmt: skip
    assert status == 0
    told = shlex.split(out.splitlines()[1])
    assert told[:2] == ["buildah", "build"]
    assert (
        f"--tag=registry.example/team/{Path(constant_models(1).uri).parent.name}:1" in told or "--network=host" in told
    )
    assert "LONGSHORE_MODEL_NAME" in (tmp_path / "context" / "Dockerfile").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["tornado"], "'tornado' is not one of"),
        (["fastapi", "--print", "--context", "x"], "not both"),
        (["fastapi", "--digest", DIGEST], "--model"),
        (["fastapi", "--push"], "--registry or --tag"),
        (["fastapi", "--label", "x"], "KEY=VALUE"),
        (["fastapi", "--extras", "s3,torch", "--print"], "torch"),
        (["fastapi", "--pip", "--evil", "--print"], "--evil"),
    ],
)
def test_wrong_use_is_told(capsys, words, told):
    status, _, err = run(capsys, *words)
    assert status == 2
    assert told in err


def test_steps_know_the_registry_that_their_image_came_from():
    assert 'LONGSHORE_IMAGE_REGISTRY="registry.example/x"' in dockerfile(
        Recipe(image="python", registry="registry.example/x")
    )
    assert "LONGSHORE_IMAGE_REGISTRY" not in dockerfile(Recipe(image="fastapi", registry="registry.example/x"))
    assert image_name("flask", "registry.example/x") == f"registry.example/x/longshore-flask:{longshore.__version__}"


def test_health_is_told_by_the_status(capsys):
    assert health.main(["1", "/v2/health/ready"]) == 1
    assert "no answer on port 1" in capsys.readouterr().err


def test_one_variable_moves_all_images_to_a_registry_of_one_s_own():
    code = """
from longshore.authoring import image
from longshore.targets.pods import KSERVE_IMAGE, SELDON_IMAGE, server_image
print(image(), KSERVE_IMAGE, SELDON_IMAGE, server_image("flask"))
"""

    def told(registry):
        environment = {**os.environ, "LONGSHORE_IMAGE_REGISTRY": registry}
        environment.pop("LONGSHORE_IMAGE", None)
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )

    own = "registry.example:5000/team"
    assert told(own).stdout.split() == [image_name(image, own) for image in ("python", "kserve", "seldon", "flask")]
    assert "LONGSHORE_IMAGE_REGISTRY = 'https://x' is not valid" in told("https://x").stderr
