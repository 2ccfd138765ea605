#!/bin/sh
# Builds the virtual environment of the project: infra/setup.sh VENV
# Exact versions with hashes from requirements.lock, then the project itself, editable.
set -eu
venv=$1
python=${PYTHON:-python3}

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || {
    echo "marketflow needs python3 (3.11 or 3.12): apt-get install python3 python3-venv" >&2
    exit 1
}
case "$version" in
    3.11 | 3.12) ;;
    *) echo "marketflow needs Python 3.11 or 3.12 (bytewax has no newer wheels), found $version: make PYTHON=python3.11" >&2; exit 1 ;;
esac

# Debian splits ensurepip off into python3-venv.
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing python3-venv ..." >&2
        apt-get update -q >&2 && apt-get install -yq "python$version-venv" >&2
    else
        echo "python3 has no ensurepip: apt-get install python3-venv" >&2
        exit 1
    fi
fi

echo "setting up $venv (once; about a minute) ..." >&2
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip="$venv/bin/python -m pip --disable-pip-version-check --no-input -q"
$pip install --require-hashes -r requirements.lock
$pip install --no-deps --no-build-isolation -e .
# Also where PYTHONDONTWRITEBYTECODE is set, as in many images: compiling what a run imports anew
# takes two seconds of every start. A source that changes later is noticed and compiled again.
"$venv/bin/python" -m compileall -q "$venv/lib" flows operators schemas sinks sources || true
