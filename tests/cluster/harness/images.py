"""Container images without a public registry: built with buildah, on a base that is made here.

Longshore's own are built by its own command, ``longshore image build``.

``python:3.11-slim`` is a Debian system with Python in /usr/local. A stand-in of that name, of debootstrap's smallest
system and this machine's own Python, is put into buildah's storage, so that ordinary Dockerfiles build unchanged.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness.builds import built, module_folder
from harness.system import Missing, cache_folder, locked
from longshore.images import Recipe, write_context
from longshore.spec.image import image_name as longshore_image

__all__ = ["BUILD_OPTIONS", "LONGSHORE_IMAGES", "PEERS", "Images", "longshore_image", "shown_to_pip"]

PYTHON_IMAGE = "docker.io/library/python:3.11-slim"
LONGSHORE_IMAGES = ("python", "fastapi", "flask", "django", "kserve")
"""Those of longshore's images that tests run."""

_PACKAGES = (
    "ca-certificates",
    "libbz2-1.0",
    "libffi8",
    "liblzma5",
    "libncursesw6",
    "libreadline8",
    "libsqlite3-0",
    "libssl3",
    "libuuid1",
    "netbase",
    "tzdata",
    "zlib1g",
)
_SUITE = "bookworm"
_MIRROR = "http://deb.debian.org/debian"
_EXCLUDED = ("*/test", "*/tests", "*/__pycache__", "*.a", "./lib/python3.*/site-packages/*", "./bin/*", "./share/*")
_CONTENT = "content"
"""Label with the digest of what an image was built of."""

BUILD_OPTIONS = ("--isolation", "oci", "--runtime", "runc", "--network", "host")
"""What podman and buildah are told in order to build without a daemon and a network of their own."""

_SMALL = {"pause": "images", "coredns": "coredns"}

PEERS = {
    "storage-initializer": (
        "docker.io/kserve/storage-initializer:v0.20.0",
        ["python/storage-initializer/scripts/initializer-entrypoint"],
    ),
    "mlserver": ("docker.io/seldonio/mlserver:1.7.1", []),
    "nginx": ("docker.io/nginxinc/nginx-unprivileged:1.28", []),
    "torchserve": (longshore_image("torch"), []),
    "tensorflow-serving": ("docker.io/tensorflow/serving:2.19.1", []),
}
"""Stand-ins for images, from tests/cluster/images: their names, and files of KServe's module that they take."""

_OWN_BASE = "longshore-python"
"""What a Dockerfile there calls longshore's image for steps."""


class Images:
    """Builds images and pushes them to a registry."""

    def __init__(self) -> None:
        self._folder = cache_folder() / "containers"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._settings = self._write_settings()

    @contextmanager
    def built(self) -> Iterator[list[str]]:
        """Build all images that the tests take, as far as something changed; gives their names.

        Nobody else builds as long as they are worked with: what is built anew takes away what was there.

        Raises:
            Missing: If one cannot be built.
        """
        with locked(self._folder / "lock"):
            contexts = {name: _context(name) for name in LONGSHORE_IMAGES}
            self.make_room(contexts.values())
            names = [self._build_small(name) for name in _SMALL]
            self._make_base()
            names += [self._build_longshore(name, context) for name, context in contexts.items()]
            names += [self._build_peer(name) for name in PEERS]
            yield names

    def need(self, image: str) -> str:
        """Raise Missing unless an image was built; gives its name."""
        if not self._has(image):
            raise Missing(f"the image {image} is not built: run 'make cluster-parts'")
        return image

    def identity(self, image: str) -> str:
        """Digest of an image's content."""
        identity: str = json.loads(self._buildah("inspect", "--type", "image", image))["FromImageID"]
        return identity

    def push(self, image: str, registry: str, path: str | None = None) -> None:
        """Push an image to a registry, under its path without the host unless another one is given."""
        _run(self.push_command(image, registry, path))

    def push_command(self, image: str, registry: str, path: str | None = None) -> list[str]:
        """The command that does it."""
        environment = [f"{name}={value}" for name, value in self._settings.items()]
        target = f"docker://{registry}/{path or image.partition('/')[2]}"
        return ["env", *environment, "buildah", "push", "--quiet", "--tls-verify=false", image, target]

    def make_room(self, contexts: Iterable[Mapping[str, bytes]]) -> None:
        """Take away what images were made of before, a gigabyte for each change of a lock.

        What they are made of now stays: a change of longshore's own files builds small layers only.
        """
        known = self._folder / "installed"
        installed = _digest_of({n: c for context in contexts for n, c in context.items() if not n.endswith(".whl")})
        if not known.exists() or known.read_text() != installed:
            # a build that was killed leaves a container, which keeps what it was made of
            self._buildah("rm", "--all")
            self._buildah("rmi", "--prune")
            known.write_text(installed)

    def _build_longshore(self, name: str, context: Mapping[str, bytes]) -> str:
        image, content = longshore_image(name), _digest_of(context)
        if not self._has(image, content):
            command = [sys.executable, "-m", "longshore.cli", "image", "build", name, "--builder=buildah"]
            options = [*BUILD_OPTIONS, "--label", f"{_CONTENT}={content}"]
            _run([*command, *shown_to_pip(), "--", *options], self.environment)
        return image

    def _build_peer(self, name: str) -> str:
        image, sources = PEERS[name]
        module = module_folder("kserve", "github.com/kserve/kserve")
        files = [*(Path(__file__).parents[1] / "images" / name).iterdir(), *(module / source for source in sources)]
        parts = {path.name: path.read_bytes() for path in files}
        base = longshore_image("python")
        if f"FROM {_OWN_BASE}\n".encode() in parts["Dockerfile"]:
            parts["Dockerfile"] = parts["Dockerfile"].replace(_OWN_BASE.encode(), base.encode())
            parts["base"] = self.identity(base).encode()
        content = _digest_of(parts)
        if not self._has(image, content):
            with tempfile.TemporaryDirectory() as context:
                for file, data in parts.items():
                    # some of them are programs
                    (Path(context) / file).write_bytes(data)
                    (Path(context) / file).chmod(0o755)
                self._bud(image, Path(context) / "Dockerfile", Path(context), content)
        return image

    def _bud(self, image: str, dockerfile: Path, context: Path, content: str) -> None:
        """Build a Dockerfile; layers that did not change are taken from the build before."""
        options = [*BUILD_OPTIONS, "--pull-never", "--layers", "--label", f"{_CONTENT}={content}", *_trust()]
        self._buildah("bud", *options, "--tag", image, "--file", str(dockerfile), str(context))

    def _build_small(self, name: str) -> str:
        image = f"registry.local/{name}:1"
        program = built(_SMALL[name]) / name
        content = _digest_of({name: program.read_bytes()})
        if self._has(image, content):
            return image
        with tempfile.TemporaryDirectory() as context:
            shutil.copy(program, context)
            lines = ["FROM scratch", f"COPY {name} /{name}", f'ENTRYPOINT ["/{name}"]']
            (Path(context) / "Dockerfile").write_text("\n".join(lines))
            self._bud(image, Path(context) / "Dockerfile", Path(context), content)
        return image

    def _make_base(self) -> None:
        digest = hashlib.sha256(json.dumps([sys.version, _PACKAGES, _SUITE, _EXCLUDED]).encode()).hexdigest()
        if self._has(PYTHON_IMAGE, digest):
            return
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch) / "root"
            include = f"--include={','.join(_PACKAGES)}"
            _run(["debootstrap", "--variant=minbase", include, _SUITE, str(root), _MIRROR])
            _install_python(root)
            archive = Path(scratch) / "root.tar"
            _run(["tar", "-C", str(root), "--numeric-owner", "-cf", str(archive), "."])
            path = "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
            lines = ["FROM scratch", "ADD root.tar /", f"ENV {path} LANG=C.UTF-8"]
            context = Path(scratch) / "context"
            context.mkdir()
            archive.rename(context / "root.tar")
            (context / "Dockerfile").write_text("\n".join([*lines, 'CMD ["python3"]']))
            self._bud(PYTHON_IMAGE, context / "Dockerfile", context, digest)

    def _has(self, image: str, content: str | None = None) -> bool:
        done = subprocess.run(
            ["buildah", "inspect", "--type", "image", image],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return False
        labels = json.loads(done.stdout)["OCIv1"]["config"].get("Labels") or {}
        return content is None or labels.get(_CONTENT) == content

    def _buildah(self, *arguments: str) -> str:
        return _run(["buildah", *arguments], self.environment)

    @property
    def environment(self) -> dict[str, str]:
        """That of a container tool which finds the images, with settings that depend on nothing else here."""
        return {**os.environ, **self._settings}

    def _write_settings(self) -> dict[str, str]:
        """Settings of the container tools that depend on nothing else on the machine."""
        folder = self._folder
        files = {
            "storage.conf": (
                f'[storage]\ndriver = "overlay"\nrunroot = "{folder}/run"\ngraphroot = "{folder}/storage"\n'
            ),
            "containers.conf": (
                "[containers]\ndefault_ulimits = []\n"
                'netns = "host"\ncgroups = "enabled"\n'
                'seccomp_profile = "unconfined"\napparmor_profile = "unconfined"\n'
                '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
            ),
            "registries.conf": 'unqualified-search-registries = ["docker.io"]\n',
            "policy.json": '{"default": [{"type": "insecureAcceptAnything"}]}\n',
        }
        for name, content in files.items():
            (folder / name).write_text(content)
        return {
            "CONTAINERS_STORAGE_CONF": f"{folder}/storage.conf",
            "CONTAINERS_CONF": f"{folder}/containers.conf",
            "CONTAINERS_REGISTRIES_CONF": f"{folder}/registries.conf",
        }


def _context(name: str) -> dict[str, bytes]:
    """What one of longshore's images is built of, by name."""
    with tempfile.TemporaryDirectory() as scratch:
        write_context(Recipe(image=name), Path(scratch))
        return {f"{name}/{path.name}": path.read_bytes() for path in Path(scratch).iterdir()}


def _digest_of(files: Mapping[str, bytes]) -> str:
    content = hashlib.sha256()
    for name, data in sorted(files.items()):
        content.update(f"{name}\0{len(data)}\0".encode() + data)
    return content.hexdigest()


def _install_python(root: Path) -> None:
    """Copy this interpreter's installation to /usr/local of a Debian system."""
    base = Path(sys.base_prefix)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    local = root / "usr" / "local"
    excluded = [f"--exclude={pattern}" for pattern in _EXCLUDED]
    archive = subprocess.Popen(["tar", "-C", str(base), *excluded, "-cf", "-", "."], stdout=subprocess.PIPE)
    with archive:
        subprocess.run(["tar", "-C", str(local), "-xf", "-"], stdin=archive.stdout, check=True)
    shutil.copy(base / "bin" / version, local / "bin" / version)
    for link, target in (("python3", version), ("python", "python3")):
        (local / "bin" / link).symlink_to(target)
    packages = f"lib/{version}/site-packages"
    for name in ("pip", "setuptools", "wheel"):
        for found in (base / packages).glob(f"{name}*"):
            if found.is_dir():
                shutil.copytree(found, local / packages / found.name, dirs_exist_ok=True)
    for waste in ("var/cache/apt", "usr/share/doc", "usr/share/man", "usr/share/locale"):
        shutil.rmtree(root / waste, ignore_errors=True)
    (root / "var/cache/apt/archives/partial").mkdir(parents=True)
    _run(["chroot", str(root), "/sbin/ldconfig"])
    _run(["chroot", str(root), "/usr/local/bin/python", "-c", "import ssl, sqlite3, bz2, lzma, ctypes, zlib, pip"])


def shown_to_pip() -> list[str]:
    """The machine's own pip settings and certificates, where it has some, for the command that builds."""
    certificates = next((os.environ[name] for name in ("PIP_CERT", "SSL_CERT_FILE") if name in os.environ), "")
    given = {"--pip-conf": "/etc/pip.conf", "--ca-bundle": certificates}
    return [f"{option}={path}" for option, path in given.items() if Path(path).is_file()]


def _trust() -> list[str]:
    """The same for buildah: nothing of them stays in the image."""
    paths = sorted({option.partition("=")[2] for option in shown_to_pip()})
    return [option for path in paths for option in ("--volume", f"{path}:{path}:ro")]


def _run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"'{' '.join(command[:3])}' failed: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout
