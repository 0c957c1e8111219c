#!/usr/bin/env bash
# Makes one environment from its locked requirements.
#
#   requirements/install.sh ENVIRONMENT PYTHON FILE...
#
# The files are closures, so nothing is resolved here (--no-deps). Two packages
# need care: torch's CPU build is not on every index, and deepspeed is built
# from source against the torch that is already there.
set -euo pipefail

environment=$1
python=$2
shift 2
tools=$(dirname "$environment")/tools/bin

# uv does not read pip's configuration, where a machine may name local wheels.
links=$("$tools/pip" config get global.find-links 2>/dev/null || true)
links=${links:-${PIP_FIND_LINKS:-}}
if [ -n "$links" ]; then
    export UV_FIND_LINKS=${links//[[:space:]]/,}
fi
export UV_PYTHON_DOWNLOADS=never

install() {
    "$tools/uv" pip install --quiet --python "$environment/bin/python" --no-deps "$@"
}

# The lines of all files that match (or, with -v, do not match) a pattern.
lines() {
    grep --no-filename -E "$@" || true
}

"$tools/uv" venv --quiet --clear --python "$python" "$environment"

# Each file that needs it names it.
torch=$(lines '^torch==.*\+cpu$' "$@" | sort -u)
if [ -n "$torch" ] && ! install "$torch" 2>/dev/null; then
    # Not in the configured places: the one package that has an index of its own.
    install --torch-backend cpu "$torch"
fi
install -r <(lines -v '^(torch==.*\+cpu|deepspeed==.*)$' "$@")

deepspeed=$(lines '^deepspeed==' "$@")
if [ -n "$deepspeed" ]; then
    # Its setup calls ninja by name.
    PATH=$environment/bin:$PATH install --no-build-isolation "$deepspeed"
fi

# A task is a process, and each would compile the thousands of modules it imports again
# wherever Python may not write beside them. What is no Python for this version stays as it is.
"$environment/bin/python" -m compileall -q -j 0 "$environment/lib" >/dev/null || true
