#!/bin/sh
# Finds a Python that can make virtual environments and sets up .venv with it. PYTHON=/path/to/python overrides the search.
set -eu
here=$(dirname "$0")
without_venv=""
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14}; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
        exec "$candidate" "$here/setup_venv.py"
    fi
    without_venv=$candidate
done
if [ -n "$without_venv" ]; then
    echo "ctdeface: $without_venv cannot make virtual environments: install the venv module (Debian, Ubuntu: sudo apt install python3-venv)" >&2
else
    echo "ctdeface: needs Python 3.11 or newer, and found none: install it or name it with PYTHON=/path/to/python" >&2
fi
exit 78
