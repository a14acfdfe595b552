#!/bin/sh
# venv.sh PYTHON DIRECTORY: the virtual environment with the pinned packages.
# Debian's python3 comes without ensurepip, which is in python3-venv: as root that is installed first.
set -eu
python=$1 venv=$2
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "janitor needs Python 3.11 or newer; '$python' is $("$python" --version 2>&1). Try: make PYTHON=python3.12 setup" >&2
    exit 1
}
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "python3-venv is missing: installing it"
        apt-get update -qq || echo "apt-get update had a complaint; going on" >&2
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
    else
        echo "this Python cannot make a virtual environment; install it first: apt-get install python3-venv" >&2
        exit 1
    fi
fi
echo "making $venv"
rm -rf "$venv"
"$python" -m venv "$venv"
"$venv/bin/python" -m pip install -q --disable-pip-version-check -c constraints.txt "pip>=25.1"
"$venv/bin/python" -m pip install -q --disable-pip-version-check -c constraints.txt -e . --group dev
