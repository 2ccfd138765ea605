#!/bin/sh
# Builds the virtual environment of the project: infra/setup.sh VENV LOCK...
# Exact versions with hashes from the locks, then the project itself, editable.
set -eu
venv=$1
shift
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

echo "installing $* into $venv, once, about 20 s ..." >&2
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip="$venv/bin/python -m pip --disable-pip-version-check --no-input -q"
# pip alone takes three times as long: most of that is reading the index's pages, one by one.
$pip install --no-compile --require-hashes -r infra/setup.lock
locked=""
for lock in "$@"; do
    locked="$locked -r $lock"
done
install="$venv/bin/uv pip install -q --python $venv/bin/python"
# uv does not know pip's settings: who has an index of their own there gets it from pip.
if $pip config list | grep -q "index" || ! $install --require-hashes $locked; then
    echo "installing with pip, about a minute ..." >&2
    install="$pip install"
    $install --require-hashes $locked
fi
$install --no-deps --no-build-isolation -e .
# By its package's name mypy finds the root, whatever its folder is called.
mkdir -p .cache/package && ln -sfn ../.. .cache/package/marketflow
# Python writes byte code at the first import; where images forbid it (PYTHONDONTWRITEBYTECODE),
# every start would compile what it imports anew, for seconds.
if [ -n "${PYTHONDONTWRITEBYTECODE:-}" ]; then
    "$venv/bin/python" -m compileall -q -j 0 "$venv/lib" __init__.py flows operators schemas sinks sources || true
fi
