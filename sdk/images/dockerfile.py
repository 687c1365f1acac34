"""A recipe as a Dockerfile: pure text. A recipe's values are valid; what is free text in it is quoted here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from longshore._version import __version__
from longshore.images.kinds import KINDS
from longshore.images.locks import WHOLE, locks_of
from longshore.images.recipe import Recipe
from longshore.images.wheel import WHEEL
from longshore.spec.image import DIGEST_ENV, MODEL_ENV, NAME_ENV, REGISTRY_ENV, REVISION_ENV, image_name

__all__ = ["CA_SECRET", "MODEL_PLACE", "PIP_SECRET", "dockerfile"]

MODEL_PLACE: Final = "/opt/model"
"""Where a model lies in an image."""

PIP_SECRET: Final = "pip.conf"  # noqa: S105 - a name
CA_SECRET: Final = "ca.crt"  # noqa: S105
"""Names under which a builder is given the files that a recipe says it will be."""

_USER: Final = "^[^:]*:[^:]*:1000:"
_LINE: Final = "longshore:x:1000:1000::/home/longshore:/bin/sh"
_PYTHON: Final = "/opt/longshore/bin/python"
_STDLIB: Final = "python3 -c 'import os; print(os.path.dirname(os.__file__))'"
_PACKAGES: Final = "/opt/longshore/lib/python3*/site-packages"
_PIP: Final = f"python3 -m pip --python {_PYTHON} install --quiet --no-compile"
_LOCKED: Final = "\\\n        --no-deps --require-hashes --only-binary :all:"


def dockerfile(recipe: Recipe) -> str:
    """The Dockerfile; what it copies is written by :func:`longshore.images.context.write_context`."""
    lines = [
        f"# {image_name(recipe.image)}: {KINDS[recipe.image].what}.",
        f"# Generated: longshore image build {recipe.image} --context FOLDER writes it there with all that it copies.",
        "",
        "# what models are of is heavy and seldom new: a layer of its own, which images share",
        f"FROM {recipe.base} AS models",
        "WORKDIR /build",
        "ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore",
        "COPY models.txt ./",
        _run(
            "python3 -m venv --without-pip /opt/longshore",
            f"{_pip(recipe)} {_LOCKED} --requirement models.txt",
            *_settled("/opt/longshore"),
            mounts=_mounts(recipe),
        ),
        "",
        "FROM models AS libraries",
        *_libraries(recipe),
        "",
        *([*_added(recipe), ""] if recipe.packages else []),
        "FROM models AS longshore",
        f"COPY {WHEEL} ./",
        _run(f"{_PIP} \\\n        --no-deps --no-index --prefix /out ./{WHEEL}", _compiled("/out")),
        "",
        f"FROM {recipe.base}",
        # any user will do, but some libraries ask for its name; and base images leave Python's own modules uncompiled
        _run(
            f"(grep -q '{_USER}' /etc/passwd || echo '{_LINE}' >> /etc/passwd)",
            "mkdir -p /home/longshore",
            "chown 1000:1000 /home/longshore",
            _compiled(f'-x site-packages "$({_STDLIB})"'),
        ),
        "COPY --from=models /opt/longshore /opt/longshore",
        "COPY --from=libraries /out /opt/longshore",
        *(["COPY --from=added /added /opt/longshore"] if recipe.packages else []),
        _run(*_finished(recipe)),
        "# a layer of its own, so that a new version of longshore is a small one",
        "COPY --from=longshore /out /opt/longshore",
        *([f"COPY model {MODEL_PLACE}"] if recipe.model else []),
        f"ENV PATH=/opt/longshore/bin:$PATH {_assignments(_environment(recipe))}",
        f"LABEL {_assignments(_labels(recipe))}",
        "USER 1000:1000",
        "WORKDIR /home/longshore",
        *_command(recipe),
    ]
    return "\n".join(lines) + "\n"


def _libraries(recipe: Recipe) -> list[str]:
    install = f"{_pip(recipe)} {_LOCKED} --prefix /out --requirement libraries.txt"
    sources = locks_of(recipe.image, recipe.brings, recipe.packages.names).sources
    if not sources:
        return ["COPY libraries.txt ./", _run(install, *_settled("/out"), mounts=_mounts(recipe))]
    return [
        "COPY build.txt libraries.txt ./",
        "# what has no wheel is built by what is locked, and not by what an index has today",
        _run(
            f"{_pip(recipe)} {_LOCKED} --requirement build.txt",
            f"{install} \\\n        --no-binary {','.join(sources)} --no-build-isolation --ignore-installed",
            *_settled("/out"),
            mounts=_mounts(recipe),
        ),
    ]


def _added(recipe: Recipe) -> list[str]:
    return [
        "# what a user adds is resolved beside what is locked, which stays as it is",
        "FROM libraries AS added",
        "COPY added.txt constraints.txt ./",
        *(["COPY packages ./packages/"] if recipe.packages.archives else []),
        _run(
            "export PYTHONPATH=$(echo /out/lib/python3*/site-packages)",
            f"{_pip(recipe)} \\\n        --prefix /added --constraint constraints.txt --requirement added.txt",
            _compiled("/added"),
            mounts=_mounts(recipe),
        ),
    ]


def _finished(recipe: Recipe) -> list[str]:
    kind, steps = KINDS[recipe.image], list[str]()
    if kind.system:
        # slim systems have no manuals, and Java's package links to its own
        steps += ["mkdir -p /usr/share/man/man1", "apt-get update"]
        steps.append(f"apt-get install --yes --no-install-recommends {' '.join(kind.system)}")
        steps.append("rm -rf /var/lib/apt/lists/*")
    if kind.steps:
        # what a step of one's own installs at run time goes into its home, with the pip of the base image
        steps.append("sed -i '/^include-system-site-packages/ s/false/true/' /opt/longshore/pyvenv.cfg")
    else:
        steps.append("python3 -m pip uninstall --quiet --yes --root-user-action ignore setuptools wheel pip")
    if _has_lightgbm(recipe):
        # its wheel takes the OpenMP of the system, where scikit-learn's brings one: a second one is no use
        steps.append(f"ln -s {_PACKAGES}/scikit_learn.libs/libgomp-* /opt/longshore/lib/libgomp.so.1")
    return steps


def _has_lightgbm(recipe: Recipe) -> bool:
    return recipe.image in WHOLE or "lightgbm" in recipe.brings


def _environment(recipe: Recipe) -> dict[str, str]:
    variables = {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "LONGSHORE_HOME": "/tmp/longshore"}  # noqa: S108
    if _has_lightgbm(recipe):
        variables["LD_LIBRARY_PATH"] = "/opt/longshore/lib"
    if not KINDS[recipe.image].steps:
        # only /tmp is written to, and nothing is imported from where the server happens to run
        variables |= {"HOME": "/tmp", "PYTHONSAFEPATH": "1"}  # noqa: S108
    else:
        # what writes to its home elsewhere; as a server's, it is read-only
        variables["MPLCONFIGDIR"] = "/tmp/matplotlib"  # noqa: S108
        if recipe.registry is not None:
            variables[REGISTRY_ENV] = recipe.registry
    if (model := recipe.model) is not None:
        variables |= {
            MODEL_ENV: MODEL_PLACE,
            NAME_ENV: model.name,
            DIGEST_ENV: model.digest,
            REVISION_ENV: model.revision,
        }
    return variables


def _labels(recipe: Recipe) -> dict[str, str]:
    labels = {
        "org.opencontainers.image.title": f"longshore-{recipe.image}",
        "org.opencontainers.image.description": KINDS[recipe.image].what,
        "org.opencontainers.image.version": __version__,
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.base.name": recipe.base,
    }
    if (model := recipe.model) is not None:
        labels |= {
            "org.opencontainers.image.title": model.name,
            "org.opencontainers.image.description": f"The model {model.name} in {KINDS[recipe.image].what}",
            "dev.longshore.model.digest": model.digest,
            "dev.longshore.revision": model.revision,
        }
        del labels["org.opencontainers.image.version"], labels["org.opencontainers.image.licenses"]
    return {**labels, "dev.longshore.version": __version__, **recipe.labels}


def _command(recipe: Recipe) -> list[str]:
    kind = KINDS[recipe.image]
    lines = [f"RUN {json.dumps(['python', '-m', 'longshore.serving', '--check'])}"] if recipe.model else []
    if kind.health is not None:
        health = json.dumps(["python", "-m", "longshore.serving.health", str(kind.ports[0]), kind.health])
        lines += [
            f"EXPOSE {' '.join(map(str, kind.ports))}",
            f"HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 CMD {health}",
        ]
    lines += [f"ENTRYPOINT {json.dumps(kind.command)}"] if kind.command else []
    return [*lines, *([f"CMD {json.dumps(kind.arguments)}"] if kind.arguments else [])]


def _settled(place: str) -> list[str]:
    return [f"find {place} -type d -name tests -prune -exec rm -rf {{}} +", _compiled(place)]


def _compiled(place: str) -> str:
    # a read-only file system never gets any later, and these count whatever becomes of the files' dates; packages have
    # files that only newer Pythons read
    return f"(python3 -m compileall -qq -j 0 --invalidation-mode unchecked-hash {place} || true)"


def _pip(recipe: Recipe) -> str:
    return _PIP + (f" --cert /run/secrets/{CA_SECRET}" if recipe.ca_bundle is not None else "")


def _mounts(recipe: Recipe) -> str:
    """What a step sees of the machine that builds, and no layer keeps."""
    mounts = []
    if recipe.pip_conf is not None:
        mounts.append(f"--mount=type=secret,id={PIP_SECRET},target=/etc/pip.conf")
    if recipe.ca_bundle is not None:
        mounts.append(f"--mount=type=secret,id={CA_SECRET}")
    return "".join(f"{mount} \\\n    " for mount in mounts)


def _run(*steps: str, mounts: str = "") -> str:
    return f"RUN {mounts}" + " \\\n    && ".join(steps)


def _assignments(values: Mapping[str, str]) -> str:
    return " \\\n    ".join(f'{name}="{_quoted(value)}"' for name, value in values.items())


def _quoted(text: str) -> str:
    for character in ("\\", '"', "$"):
        text = text.replace(character, f"\\{character}")
    return text
