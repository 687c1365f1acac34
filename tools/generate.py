"""Generate what stands in the repository and follows from the code: ``generate.py pipelines|reference [FOLDER]``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def compiled_pipelines(folder: Path) -> None:
    """Compile every pipeline, as a user without settings of his own would, into ``folder``."""
    from kfp import compiler

    from longshore import pipelines

    folder.mkdir(parents=True, exist_ok=True)
    for name in pipelines.names():
        compiler.Compiler().compile(pipelines.get(name), str(folder / f"{name}.yaml"))


GENERATORS = {
    "pipelines": (compiled_pipelines, ROOT / "manifests" / "pipelines"),
}


def main(arguments: list[str]) -> None:
    """Run one generator, into its place in the repository or into another folder."""
    for name in ("LONGSHORE_IMAGE", "LONGSHORE_PACKAGES_TO_INSTALL"):
        os.environ.pop(name, None)
    generate, place = GENERATORS[arguments[0]]
    generate(Path(arguments[1]) if len(arguments) > 1 else place)


if __name__ == "__main__":
    main(sys.argv[1:])
