#!/usr/bin/env bash
# mypy and import-linter see the library as it is installed, which the folders sdk/, components/ and pipelines/ are not.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
tree=build/layout
rm -rf "$tree"
mkdir -p "$tree/longshore"
for entry in sdk/*; do ln -s "$root/$entry" "$tree/longshore/"; done
ln -s "$root/components" "$root/pipelines" "$tree/longshore/"
cd "$tree"
# messages name the files where a person edits them
MYPYPATH=. "$root/.venv/bin/mypy" --config-file "$root/pyproject.toml" --cache-dir "$root/.mypy_cache" -p longshore |
    sed -E 's#^longshore/((components|pipelines)/)#\1#; s#^longshore/#sdk/#'
PYTHONPATH=. "$root/.venv/bin/lint-imports" --config "$root/pyproject.toml" --cache-dir "$root/.import_linter_cache" --no-logo
