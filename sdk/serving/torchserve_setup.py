"""What a pod with TorchServe begins with: the package is fetched and checked before anything of it is loaded.

``python -m longshore.serving.torchserve_setup`` runs in longshore's image, before TorchServe's own is started.
TorchServe unpacks archives with any paths, so each is looked at here. It makes its tokens itself, of 48 bits and for an
hour, and takes none that it is given; those of a Secret are asked for by the gate in front of it, whose list of them is
written here.
"""

from __future__ import annotations

import re
import shutil
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from longshore import storage
from longshore.errors import InvalidValue, LongshoreError, ModelError
from longshore.packaging import torchserve_process
from longshore.packaging.archive import inspect_archive
from longshore.packaging.model import verify
from longshore.packaging.torchserve import CONFIG_FILE, STORE
from longshore.serving.tokens import tokens_in

__all__ = ["bring_package", "check_package", "gate_tokens", "main"]


def bring_package(uri: str, digest: str | None, place: Path) -> None:
    """Fetch a package, check it, and put it where TorchServe looks.

    Args:
        uri: The package.
        digest: Its recorded digest; None checks nothing but the archives.
        place: Where to; what is there goes.

    Raises:
        DigestMismatch: If its content is not what was recorded.
        ModelError: If it has no archive or no configuration, or an archive is not to be unpacked.
        StorageError: If it cannot be fetched.
    """
    for left in place.iterdir():
        # of an attempt that was killed
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    package, fetched = place / "package", storage.fetch_directory(uri, place)
    if fetched.is_relative_to(place):
        fetched.rename(package)
    else:
        shutil.copytree(fetched, package)
    # the copy, which nobody changes any more
    check_package(package, digest, uri)


def check_package(package: Path, digest: str | None, name: str) -> None:
    """Refuse a package that is not what was recorded, or not to be unpacked.

    Args:
        package: Its directory.
        digest: Its recorded digest; None checks nothing but the archives.
        name: What it is called, for messages.

    Raises:
        DigestMismatch: If its content is not what was recorded.
        ModelError: If it has no archive or no configuration, or an archive is not to be unpacked.
    """
    verify(package, digest)
    archives = sorted((package / STORE).glob("*.mar"))
    if not archives or not (package / CONFIG_FILE).is_file():
        raise ModelError(
            f"{name} is no package for TorchServe, which has {CONFIG_FILE} and {STORE}/NAME.mar: make one with "
            "package_torchserve"
        )
    for archive in archives:
        inspect_archive(archive)


def gate_tokens(folder: Path) -> str:
    """Lines for Nginx's ``map`` of headers that are let through.

    Args:
        folder: The Secret's values, a file for each.

    Raises:
        InvalidValue: If there is no token, or one is not valid; no message holds one.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    tokens = dict.fromkeys(token for path in files for token in tokens_in(path))
    if not tokens:
        raise InvalidValue("TorchServeOptions.token_secret", str(folder), "the Secret holds no token")
    # a map takes no heed of case, an expression does
    return "".join(f'"~^[Bb]earer {re.escape(token)}$" 1;\n' for token in tokens)


def main(arguments: Sequence[str] | None = None) -> int:
    """Bring the package, and what goes with it.

    Args:
        arguments: The command line; None is that of this process.

    Returns:
        0, or 1 if it failed, having said why.
    """
    parser = ArgumentParser(description="Bring a package for TorchServe into a pod.")
    parser.add_argument("--model", required=True, help="the package: a path or URI")
    parser.add_argument("--digest", help="digest that it must have")
    parser.add_argument("--place", type=Path, required=True, help="directory to put it into")
    parser.add_argument("--tokens", type=Path, help="directory with a Secret of tokens")
    parser.add_argument("--gate", type=Path, help="directory to put the gate's list of tokens into")
    options = parser.parse_args(arguments)
    try:
        if options.tokens is not None:
            (options.gate / "tokens.conf").write_text(gate_tokens(options.tokens), encoding="ascii")
        bring_package(options.model, options.digest, options.place)
        # TorchServe's image may have no longshore
        shutil.copyfile(torchserve_process.__file__, options.place / "torchserve_process.py")
    except LongshoreError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
