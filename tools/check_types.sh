#!/usr/bin/env bash
# Types and layers, checked in the installed layout; messages name the files where a person edits them.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
tools/layout.sh
cd build/layout
MYPYPATH=. "$root/.venv/bin/mypy" --config-file "$root/pyproject.toml" --cache-dir "$root/.mypy_cache" -p longshore |
    sed -E 's#^longshore/((components|pipelines)/)#\1#; s#^longshore/#sdk/#'
PYTHONPATH=. "$root/.venv/bin/lint-imports" --config "$root/pyproject.toml" --cache-dir "$root/.import_linter_cache" --no-logo
cd "$root/tests/cluster"
MYPYPATH=".:$root/build/layout" "$root/.venv/bin/mypy" --config-file "$root/pyproject.toml" --cache-dir "$root/.mypy_cache/harness" -p harness |
    sed -E 's#^harness/#tests/cluster/harness/#'
