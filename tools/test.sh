#!/usr/bin/env bash
# Checks everything: set-up if it is missing, ruff, the tests, and the golden cases.
#
#     bash tools/test.sh [ARGUMENTS FOR PYTEST...]        e.g. tests/backbones -k lska
#
# Environment variables: WORKERS, pytest processes (default: one per core, at most 4);
# GOLDEN, a folder of more golden cases and GOLDEN_SLUGS, those of its subfolders to check;
# and those of tools/setup.sh.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"
START=$SECONDS
PYTHON=$(bash tools/setup.sh)
CORES=$(env -u OMP_NUM_THREADS nproc)  # nproc takes that variable for the number of cores
WORKERS=${WORKERS:-$((CORES < 4 ? CORES : 4))}
export OMP_NUM_THREADS=1  # the workers share the cores

summary=()
failed=0

# step NAME COMMAND...: runs it and notes the outcome; later steps run all the same.
step() {
    local name=$1 began=$SECONDS outcome=passed
    shift
    printf '\n== %s\n' "$name"
    "$@" || { outcome=FAILED; failed=1; }
    summary+=("$(printf '%-8s %-24s %4d s' "$outcome" "$name" $((SECONDS - began)))")
}

summary+=("$(printf '%-8s %-24s %4d s' passed 'set-up' $((SECONDS - START)))")
step 'ruff' "$PYTHON" -m ruff check .
step 'pytest' "$PYTHON" -m pytest -q -n "$WORKERS" --dist worksteal "$@"
step 'golden cases' "$PYTHON" tests/golden/check.py tests/golden/data
if [[ -n ${GOLDEN:-} ]]; then
    # shellcheck disable=SC2086  # several names
    step "golden: $GOLDEN" "$PYTHON" tests/golden/check.py "$GOLDEN" ${GOLDEN_SLUGS:-}
fi

printf '\n== summary\n'
printf '%s\n' "${summary[@]}"
printf '%s in %d min %d s\n' "$([[ $failed = 0 ]] && echo 'all passed' || echo 'FAILED')" \
    $(((SECONDS - START) / 60)) $(((SECONDS - START) % 60))
exit "$failed"
