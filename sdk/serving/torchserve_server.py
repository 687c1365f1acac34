"""TorchServe with a package that something else has brought: ``python -m longshore.serving.torchserve_server``.

It is checked here before TorchServe unpacks it.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from longshore.errors import LongshoreError
from longshore.packaging import torchserve_process
from longshore.serving.torchserve_setup import check_package

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the package, and run TorchServe until it is told to end, or does not serve its models.

    Args:
        arguments: The command line; None is that of this process.

    Returns:
        0 if it was told to end, 1 if it failed.
    """
    parser = ArgumentParser(description="Check a package for TorchServe, and run TorchServe with it.")
    parser.add_argument("--digest", help="digest that the package must have")
    parser.add_argument("--ts-config", type=Path, required=True, help="its configuration, config/config.properties")
    options, others = parser.parse_known_args(arguments)
    package = options.ts_config.parent.parent
    try:
        check_package(package, options.digest, str(package))
    except LongshoreError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return torchserve_process.main([f"--ts-config={options.ts_config}", *others])


if __name__ == "__main__":
    sys.exit(main())
