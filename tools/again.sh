# shellcheck shell=bash
# Sourced by the scripts that start several processes.

# remember 'VARIABLES' SCRIPT ARGUMENTS...: what to call again after an interruption, with those of
# the environment variables that are set; see hybrid_mm/run/interrupt.py
remember() {
    local names=$1 name words
    shift
    words=(bash "$@")
    for name in $names; do
        if [ -n "${!name:-}" ]; then words=("$name=${!name}" "${words[@]}"); fi
    done
    if [ "${words[0]}" != bash ]; then words=(env "${words[@]}"); fi
    HYBRID_MM_COMMAND=$(printf '%q ' "${words[@]}")
    export HYBRID_MM_COMMAND
}
