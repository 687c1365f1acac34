#!/usr/bin/env bash
# Make .venv with the locked dependencies and longshore itself. Installs system packages only as root on Debian or Ubuntu.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=()
python=${PYTHON:-}
if [ -z "$python" ]; then
    for candidate in python3.11 python3; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            python=$candidate
            break
        fi
    done
fi
[ -n "$python" ] || packages+=(python3.11 python3.11-venv)
if [ -n "$python" ] && ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    packages+=("$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')")
fi
# LightGBM's wheel links against the system's OpenMP
if [ "$(uname -s)" = Linux ] && ! ldconfig -p 2>/dev/null | grep -q 'libgomp\.so\.1'; then
    packages+=(libgomp1)
fi
if [ ${#packages[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "Installing system packages: ${packages[*]}"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends "${packages[@]}" >/dev/null
    else
        echo "These system packages are missing: ${packages[*]} (their Debian names). Install them and run the command again." >&2
        exit 1
    fi
fi
python=${python:-python3.11}

# an environment of another Python, or one whose making was interrupted, is made anew
if ! .venv/bin/python -c 'import pip' 2>/dev/null; then
    rm -rf .venv
    "$python" -m venv .venv
fi
echo "Installing the locked dependencies into .venv (a minute or two the first time) ..."
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
.venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
