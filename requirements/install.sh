#!/usr/bin/env bash
# Makes one environment from its locked requirements.
#
#   requirements/install.sh ENVIRONMENT PYTHON FILE...
#
# The files are closures, so nothing is resolved here (--no-deps), and nothing is
# installed whose hash does not stand in them. Two packages need care: torch's CPU
# build is not on every index, and deepspeed is built from source against the torch
# that is already there.
set -euo pipefail

environment=$1
python=$2
shift 2
files=("$@")
tools=$(dirname "$environment")/tools/bin

# A machine may name local wheels.
links=$("$(dirname "$0")/links.sh" "$tools/pip" | paste -sd ,)
if [ -n "$links" ]; then
    export UV_FIND_LINKS=$links
fi
export UV_PYTHON_DOWNLOADS=never

install() {
    "$tools/uv" pip install --quiet --python "$environment/bin/python" --no-deps --require-hashes "$@"
}

# The entries of all files, each on one line, that match (or, with -v, do not match) a pattern.
entries() {
    sed -e ':whole' -e '/\\$/N' -e 's/ *\\\n */ /' -e 't whole' "${files[@]}" | { grep -E "$@" || true; } | sort -u
}

"$tools/uv" venv --quiet --clear --python "$python" "$environment"

# Each file that needs it comes with it.
torch=$(entries '^torch==[^ ]*\+cpu ')
if [ -n "$torch" ] && ! install -r <(echo "$torch") 2>/dev/null; then
    # Not in the configured places: the one package that has an index of its own.
    install --torch-backend cpu -r <(echo "$torch")
fi
install -r <(entries -v '^(torch==[^ ]*\+cpu|deepspeed==)')

deepspeed=$(entries '^deepspeed==')
if [ -n "$deepspeed" ]; then
    # Its setup calls ninja by name.
    PATH=$environment/bin:$PATH install --no-build-isolation -r <(echo "$deepspeed")
fi

# A task is a process, and each would compile the thousands of modules it imports again
# wherever Python may not write beside them. What is no Python for this version stays as it is.
# Not `compileall -j`: Python before 3.11.6, and so Debian 12's, stands still for ever now and
# then where a pool of processes gets more than 16,000 files (python/cpython#105829).
find "$environment/lib" -name '*.py' -print0 \
    | xargs -0 -n 500 -P "$(nproc)" "$environment/bin/python" -m compileall -q >/dev/null || true
