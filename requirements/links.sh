#!/usr/bin/env bash
# Prints where pip's configuration looks for wheels beside its index, one place a line.
#
#   requirements/links.sh PIP
#
# uv does not read that configuration. `pip config get` would read the user's file alone,
# and not /etc/pip.conf.
set -euo pipefail

{ "$1" config list 2>/dev/null || true; } \
    | sed -nE "s/^(global\.|:env:\.)find-links='(.*)'$/\2/p" | sed 's/\\n/\n/g' | tr -s ' \n' '\n' | sed '/^$/d' | sort -u
