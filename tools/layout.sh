#!/usr/bin/env bash
# Lay the library out in build/layout as it is installed, by links: the folders sdk/, components/ and pipelines/ are one
# package, which type checkers, import-linter and mkdocstrings can only see this way.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf build/layout
mkdir -p build/layout/longshore
for entry in "$PWD"/sdk/* "$PWD"/components "$PWD"/pipelines; do ln -s "$entry" build/layout/longshore/; done
