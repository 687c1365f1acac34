"""Generate what follows from the code and stands here: ``generate.py WHAT [FOLDER]``; see ``GENERATORS``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longshore.reference import Field

ROOT = Path(__file__).parents[1]


def compiled_pipelines(folder: Path) -> None:
    """Compile every pipeline, as a user without settings of his own would, into ``folder``."""
    from kfp import compiler

    from longshore import pipelines

    folder.mkdir(parents=True, exist_ok=True)
    for name in pipelines.names():
        compiler.Compiler().compile(pipelines.get(name), str(folder / f"{name}.yaml"))


def reference(folder: Path) -> None:
    """Write the reference pages of components and pipelines into ``folder``."""
    from longshore import components, pipelines

    folder.mkdir(parents=True, exist_ok=True)
    stages = dict.fromkeys(components.stage(name) for name in components.names())
    for stage in stages:
        stages[stage] = [components.get(name) for name in components.names() if components.stage(name) == stage]
    (folder / "components.md").write_text(
        "# Components\n\nGenerated from the components' signatures and docstrings (`make reference`). "
        "`from longshore.components import NAME`.\n"
        + "".join(f"\n## {stage}\n" + "".join(map(_section, members)) for stage, members in stages.items()),
        encoding="utf-8",
    )
    (folder / "pipelines.md").write_text(
        "# Pipelines\n\nGenerated from the pipelines' signatures and docstrings (`make reference`). "
        "Compiled, they stand in `manifests/pipelines/`.\n"
        + "".join(_section(pipelines.get(name)) for name in pipelines.names()),
        encoding="utf-8",
    )


def _section(component: Any) -> str:
    from longshore.reference import describe

    told = describe(component)
    parts = [f"\n### {told.name}", told.summary]
    if told.text:
        parts.append(told.text)
    for title, fields in (("Inputs", told.inputs), ("Outputs", told.outputs)):
        if fields:
            parts.append(f"**{title}**\n\n" + _table(fields, with_default=title == "Inputs"))
    if told.raises:
        parts.append("**Raises**\n\n" + "\n".join(f"- `{error}`: {when}" for error, when in told.raises))
    return "\n\n".join(parts).replace("``", "`") + "\n"


def _table(fields: Iterable[Field], *, with_default: bool) -> str:
    lines = (
        ["| name | type | default | |", "|---|---|---|---|"] if with_default else ["| name | type | |", "|---|---|---|"]
    )
    for field in fields:
        cells = [f"`{field.name}`", field.type]
        if with_default:
            cells.append("**required**" if field.required else "" if field.default is None else f"`{field.default!r}`")
        lines.append("| " + " | ".join([*cells, field.text.replace("|", "\\|")]) + " |")
    return "\n".join(lines)


def roles(folder: Path) -> None:
    """Write the objects that allow a step to deploy into ``folder``."""
    from longshore.cli.rbac import as_yaml
    from longshore.rbac import deployer_objects

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "deployer.yaml").write_text(
        "# What a deploying step must be allowed to do in the namespace it deploys to. Generated: make reference\n"
        "# For another namespace or account: longshore rbac --namespace NAMESPACE --service-account ACCOUNT\n"
        + as_yaml(deployer_objects("default")),
        encoding="utf-8",
    )


def kserve(folder: Path) -> None:
    """Write what a cluster with KServe needs, once, into ``folder``."""
    from longshore.cli.rbac import as_yaml
    from longshore.targets.kserve_runtimes import KSERVE_SERVER_RUNTIME, LONGSHORE_RUNTIME, serving_runtime

    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "runtime.yaml": (LONGSHORE_RUNTIME, "KServe's runtime for what longshore has packaged"),
        "runtime-kserve.yaml": (KSERVE_SERVER_RUNTIME, "The same, inside KServe's own model server"),
    }
    for file, (name, what) in files.items():
        command = f"longshore runtime --name {name} --namespace NAMESPACE --image IMAGE"
        (folder / file).write_text(
            f"# {what}. Generated: make reference\n"
            f"# For one namespace, or with an image of your own: {command}\n" + as_yaml([serving_runtime(name=name)]),
            encoding="utf-8",
        )


def images(folder: Path) -> None:
    """Write the Dockerfiles that images are built by, unless a user asks for something else, into ``folder``."""
    from longshore.images import Recipe, dockerfile
    from longshore.spec.image import IMAGES

    for image in IMAGES:
        (folder / image).mkdir(parents=True, exist_ok=True)
        (folder / image / "Dockerfile").write_text(dockerfile(Recipe(image=image)), encoding="utf-8")


GENERATORS = {
    "images": (images, ROOT / "manifests" / "images"),
    "pipelines": (compiled_pipelines, ROOT / "manifests" / "pipelines"),
    "reference": (reference, ROOT / "docs" / "reference"),
    "kserve": (kserve, ROOT / "manifests" / "kserve"),
    "roles": (roles, ROOT / "manifests" / "rbac"),
}


def main(arguments: list[str]) -> None:
    """Run one generator, into its place in the repository or into another folder."""
    images = ("LONGSHORE_IMAGE", "LONGSHORE_TORCH_IMAGE", "LONGSHORE_TENSORFLOW_IMAGE", "LONGSHORE_IMAGE_REGISTRY")
    for name in (*images, "LONGSHORE_PACKAGES_TO_INSTALL"):
        os.environ.pop(name, None)
    generate, place = GENERATORS[arguments[0]]
    generate(Path(arguments[1]) if len(arguments) > 1 else place)


if __name__ == "__main__":
    main(sys.argv[1:])
