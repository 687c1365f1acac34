"""``longshore image``: container images of the model server and of pipeline steps."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from longshore.cli import names
from longshore.cli.app import debug_option
from longshore.cli.catalogue import json_option
from longshore.cli.output import echo_json
from longshore.errors import InvalidValue
from longshore.images import (
    BASE,
    BUILDERS,
    FORMATS,
    STORES,
    BakedModel,
    BuiltImage,
    Recipe,
    build_command,
    build_image,
    dockerfile,
    push_image,
    read_model,
    read_packages,
    write_context,
)
from longshore.images.kinds import KINDS
from longshore.spec.image import IMAGES, image_name

__all__ = ["image"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
@debug_option
def image() -> None:
    """Build container images."""


@image.command()
@click.argument("name", metavar=f"[{'|'.join(IMAGES)}]", type=click.Choice(IMAGES))
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[-- BUILDER OPTIONS]")
@click.option("--tag", "-t", "tags", multiple=True, help="Full name of the image; can be given again.")
@click.option("--registry", help="Registry, and path in it, that its name begins with.")
@click.option("--base", default=BASE, show_default=True, help="Image that it stands on.")
@click.option("--platform", help="What it runs on, such as linux/arm64; by default what this machine is.")
@click.option(
    "--extras",
    metavar="LIST",
    help=f"Of {', '.join((*FORMATS, *STORES))}, those that it has, or none; by default all that have a use in it.",
)
@click.option("--pip", "packages", multiple=True, metavar="PACKAGE", help="Package to add, or the file of a wheel.")
@click.option("--requirements", multiple=True, type=_FILE, help="File of packages to add.")
@click.option("--pip-conf", type=_FILE, help="pip's settings, such as an index of your own; the image does not get it.")
@click.option("--ca-bundle", type=_FILE, help="Certificates for pip to trust; the image does not get them.")
@click.option("--model", metavar="DIRECTORY", help="Model to serve from within the image; a path or URI.")
@click.option("--model-name", help="Its name in request paths; by default that of the directory.")
@click.option("--digest", help="Digest that it must have.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Label; can be given again.")
@click.option("--builder", type=click.Choice(BUILDERS), help="What builds it; by default the first that is there.")
@click.option("--push", is_flag=True, help="Push it to its registry.")
@click.option("--print", "shown", is_flag=True, help="Print the Dockerfile, and build nothing.")
@click.option(
    "--context",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the Dockerfile and all that it copies to this folder, and build nothing.",
)
@json_option
@debug_option
def build(
    name: str,
    options: tuple[str, ...],
    tags: tuple[str, ...],
    registry: str | None,
    base: str,
    platform: str | None,
    extras: str | None,
    packages: tuple[str, ...],
    requirements: tuple[Path, ...],
    pip_conf: Path | None,
    ca_bundle: Path | None,
    model: str | None,
    model_name: str | None,
    digest: str | None,
    labels: tuple[str, ...],
    builder: str | None,
    push: bool,
    shown: bool,
    context: Path | None,
    as_json: bool,
) -> None:
    """Build an image of the model server with a web framework, of KServe's server (kserve) or of steps (python)."""
    if shown and context is not None:
        raise click.UsageError("give --print or --context, not both")
    if model is None and (model_name or digest):
        raise click.UsageError("--model-name and --digest are of the model that --model names")
    if push and not tags and registry is None:
        raise click.UsageError("say where to push it, by --registry or --tag")
    with tempfile.TemporaryDirectory(prefix="longshore-") as scratch:
        baked = None if model is None else _read(model, Path(scratch), model_name, digest)
        recipe = Recipe(
            image=name,
            base=base,
            platform=platform,
            extras=None if extras is None else [each for each in extras.split(",") if each != "none"],
            packages=read_packages(packages, requirements),
            model=baked,
            labels=_labels(labels),
            registry=registry,
            pip_conf=pip_conf,
            ca_bundle=ca_bundle,
        )
        full = tags or (_tag(recipe, model),)
        if shown:
            return click.echo(dockerfile(recipe), nl=False)
        if context is not None:
            write_context(recipe, context)
            command = shlex.join(build_command(recipe, full, builder or BUILDERS[0], str(context), options))
            return click.echo(f"{context} has the Dockerfile and all that it copies. To build it:\n{command}")
        built = build_image(recipe, full, builder=builder, options=options, on_line=_progress)
    for tag in full if push else ():
        push_image(tag, builder=built.builder, on_line=_progress)
    return echo_json(built) if as_json else click.echo(_about(recipe, built, pushed=push))


def _read(model: str, scratch: Path, name: str | None, digest: str | None) -> BakedModel:
    return read_model(model, scratch, name=name or names.model_name(_absolute(model)), digest=digest)


def _absolute(place: str) -> str:
    return place if "://" in place else str(Path(place).resolve())


def _labels(given: Sequence[str]) -> Mapping[str, str]:
    labels = dict[str, str]()
    for each in given:
        key, equals, value = each.partition("=")
        if not equals:
            raise InvalidValue("label", each, "write KEY=VALUE")
        labels[key] = value
    return labels


def _tag(recipe: Recipe, place: str | None) -> str:
    """The name of an image that was given none."""
    if recipe.model is None or place is None:
        return image_name(recipe.image, recipe.registry)
    version = names.version_of(_absolute(place)) or recipe.model.digest.removeprefix("sha256:")[:12]
    return f"{recipe.registry or 'localhost'}/{recipe.model.name}:{version}"


def _progress(line: str) -> None:
    click.echo(line, err=True)


def _about(recipe: Recipe, built: BuiltImage, *, pushed: bool) -> str:
    tag, kind = built.tags[0], KINDS[recipe.image]
    lines = [f"{'Built and pushed' if pushed else 'Built'} {', '.join(built.tags)} ({built.size}, {built.id[:19]})"]
    runner = "podman" if built.builder == "buildah" else built.builder
    run = f"{runner} run --rm --read-only --tmpfs /tmp -p 127.0.0.1:8080:8080"
    if recipe.model is not None:
        lines.append(f"{run} {tag}")
    elif kind.bakes:
        lines.append(f"{run} -v ./MODEL:/mnt/model:ro {tag} --model /mnt/model --name NAME --revision NAME-1")
    return "\n".join(lines)
