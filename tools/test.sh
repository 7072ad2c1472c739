#!/usr/bin/env bash
# Checks the project: set-up if it is missing, lint, format, types, tests, and golden cases.
#
#     bash tools/test.sh                       everything but what is slow by nature
#     bash tools/test.sh --slow                everything
#     bash tools/test.sh --quick NAME...       the tests of papers (van), modules (local_attention),
#                                              classes (HorNet), tools (train), folders or files;
#                                              stops at the first failure
#     bash tools/test.sh --changed [REVISION]  the tests of what differs from REVISION (HEAD)
#     bash tools/test.sh ARGUMENTS...          pytest with these, e.g. tests/backbones -k lska
#
# Environment variables: WORKERS, pytest processes (default: one per core, at most 4);
# GOLDEN, a folder of more golden cases and GOLDEN_SLUGS, those of its subfolders to check;
# and those of tools/setup.sh.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"
START=$SECONDS
mode=${1:-}
case $mode in
    -h | --help) awk 'NR > 1 && !/^#/ {exit} NR > 1' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;;
    --quick) [[ $# -gt 1 ]] || { echo 'error: --quick wants names, e.g. --quick van' >&2; exit 2; } ;;
esac
PYTHON=$(bash tools/setup.sh)
CORES=$(env -u OMP_NUM_THREADS nproc)  # nproc takes that variable for the number of cores
WORKERS=${WORKERS:-$((CORES < 4 ? CORES : 4))}
export OMP_NUM_THREADS=1  # the workers share the cores

summary=("$(printf '%-8s %-24s %4d s' passed 'set-up' $((SECONDS - START)))")
failed=0

# step NAME COMMAND...: runs it and notes the outcome; later steps run all the same.
step() {
    local name=$1 began=$SECONDS outcome=passed
    shift
    printf '\n== %s\n' "$name"
    "$@" || { outcome=FAILED; failed=1; }
    summary+=("$(printf '%-8s %-24s %4d s' "$outcome" "$name" $((SECONDS - began)))")
}

PYTEST=("$PYTHON" -m pytest -q -n "$WORKERS" --dist worksteal --durations 20 --durations-min 1)
step 'ruff' "$PYTHON" -m ruff check .
step 'format' "$PYTHON" -m ruff format --check .
TYPES=$(mktemp)
trap 'rm -f "$TYPES"' EXIT
"$PYTHON" -m mypy >"$TYPES" 2>&1 & # on one core, beside the tests
checked=$!
# shellcheck disable=SC2317  # step calls it
types() { local status=0; wait "$checked" || status=$?; cat "$TYPES"; return "$status"; }
case $mode in
    --quick | --changed)
        [[ $mode = --changed ]] || shift
        chosen=$("$PYTHON" tools/dev/select_tests.py "$@") || exit 2
        if [[ -n $chosen ]]; then
            # shellcheck disable=SC2086
            step 'pytest' "${PYTEST[@]}" -x -m 'not slow' $chosen
        else
            echo 'no test belongs to this'
        fi
        ;;
    '' | --slow)
        marks=(-m 'not slow')
        [[ $mode != --slow ]] || marks=()
        step 'pytest' "${PYTEST[@]}" "${marks[@]}"
        if [[ -n ${GOLDEN:-} ]]; then
            # shellcheck disable=SC2086  # several names
            step "golden: $GOLDEN" "$PYTHON" tests/golden/check.py --jobs "$WORKERS" "$GOLDEN" \
                ${GOLDEN_SLUGS:-}
        else
            summary+=("$(printf '%-8s %s' skipped 'more golden cases: GOLDEN is not set')")
        fi
        ;;
    *) step 'pytest' "${PYTEST[@]}" "$@" ;;
esac
step 'types' types

printf '\n== summary\n'
printf '%s\n' "${summary[@]}"
printf '%s in %d min %d s\n' "$([[ $failed = 0 ]] && echo 'all passed' || echo 'FAILED')" \
    $(((SECONDS - START) / 60)) $(((SECONDS - START) % 60))
exit "$failed"
