#!/usr/bin/env bash
# peer.sh NAME [LOCK]: make an environment of its own for a program that tests run beside longshore, and print its bin
# folder. It is locked in requirements/NAME.txt or the file LOCK, and kept outside the checkout, under that file's digest.
set -euo pipefail
cd "$(dirname "$0")/.."
lock=${2:-requirements/$1.txt}
digest=$(.venv/bin/python -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest()[:16])' "$lock")
place=${XDG_CACHE_HOME:-$HOME/.cache}/longshore/env/$1-$digest
if [ ! -e "$place/.ready" ]; then
    echo "Installing $1 into an environment of its own (once) ..." >&2
    rm -rf "$place"
    .venv/bin/python -m venv "$place"
    "$place/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r "$lock" >&2
    touch "$place/.ready"
fi
echo "$place/bin"
