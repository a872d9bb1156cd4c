#!/usr/bin/env bash
# Runs the sample workflow `profile_csv` on a real file, then shows the journal of that run. Called by `make demo`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

said=$(mktemp)
trap 'rm -f "$said"' EXIT

echo '$ pyflue run profile_csv --payload @examples/data/deliveries.json'
status=0
pyflue run profile_csv --payload @examples/data/deliveries.json 2>"$said" || status=$?
cat "$said" >&2
[ "$status" -eq 0 ] || exit "$status"

run_id=$(grep --only-matching --max-count=1 --extended-regexp 'workflow:profile_csv:[0-9A-Z]{26}' "$said")
echo
echo "\$ pyflue logs $run_id"
pyflue logs "$run_id"
