#!/usr/bin/env bash
# Runs two sample workflows and shows the journals of their runs. Called by `make demo`.
#
# The second one has an agent. So that no key is needed, its model is a scripted one, which the command line names: the
# answers are prepared, the tool calls in them are made.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

said=$(mktemp)
trap 'rm -f "$said"' EXIT

show() { # NAME PAYLOAD [WHICH EVENTS]: run a workflow, then show the journal of that run
	local name=$1 payload=$2 status=0
	shift 2
	echo "\$ ${PYFLUE_MODEL:+PYFLUE_MODEL=$PYFLUE_MODEL }pyflue run $name --payload $payload"
	pyflue run "$name" --payload "$payload" 2>"$said" || status=$?
	cat "$said" >&2
	[ "$status" -eq 0 ] || exit "$status"

	local run_id
	run_id=$(grep --only-matching --max-count=1 --extended-regexp "workflow:$name:[0-9A-Z]{26}" "$said")
	echo
	echo "\$ pyflue logs $run_id${*:+ $*}"
	pyflue logs "$run_id" "$@"
}

# A model that the environment names would take the place of the one that is shown here.
unset PYFLUE_MODEL
show profile_csv @examples/data/deliveries.json

echo
export PYFLUE_MODEL=scripted/examples/answers/review_document.json
show review_document @examples/data/review.json --types log,command_end,turn,tool_end,run_end
