#!/usr/bin/env bash
# The oldest releases that this package works with, and nothing but what it needs: operators, layers,
# backbones and converters are tested with them. The environment is made where it is not there yet, in
# ${XDG_CACHE_HOME:-~/.cache}/hybrid_mm/oldest; a killed run starts again.
#
#     bash tools/dev/oldest.sh                 the environment, and the tests
#     bash tools/dev/oldest.sh --environment   the environment alone
#     bash tools/dev/oldest.sh ARGUMENTS...    pytest with these, e.g. tests/backbones -k lska
#
# Environment variables: PYTHON, a Python 3.10 or 3.11 that the environment is made from; TORCH_INDEX,
# where a smaller build of torch for CPUs is (https://download.pytorch.org/whl/cpu); WORKERS, pytest
# processes (default: one per core, at most 4).
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$ROOT"
START=$SECONDS
# torch 2.1 is built for Python 3.8 to 3.11; mmengine-lite is MMEngine without OpenCV's windows
PACKAGES='torch==2.1.2 torchvision==0.16.2 numpy==1.24.4 mmengine-lite==0.10.7 matplotlib==3.9.4
    opencv-python-headless==4.8.1.78 setuptools==81.0.0 safetensors==0.4.5 pytest==8.4.2
    pytest-timeout==2.4.0 pytest-xdist==3.8.0 expecttest==0.1.6'
NETWORKS=$(printf 'network:%s,' VAN NAT ELSASwin MaxViT PVT)
# without mmcv and the task libraries, of which these need one or the other
TESTS=(tests/ops/test_custom_op.py tests/ops/test_arguments.py tests/ops/test_argument_types.py
    tests/ops/test_dispatch.py tests/ops/test_decomposed_attention.py tests/ops/test_layout.py
    tests/ops/test_ghost_attention.py tests/ops/test_mixed_shift.py tests/layers/test_elsa.py
    tests/layers/test_vector_attention.py tests/backbones/test_all.py
    tests/convert -m 'not slow' --parts "$NETWORKS"
    --ignore tests/convert/test_detectron2_heads.py --ignore tests/convert/test_gcnet.py
    --deselect 'tests/convert/test_peers.py::test_outputs[attention-modules-0]'
    --deselect 'tests/convert/test_peers.py::test_outputs[attention-modules-1]')
ENVIRONMENT=${XDG_CACHE_HOME:-$HOME/.cache}/hybrid_mm/oldest
TORCH_INDEX=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore

fits() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 11))' 2>/dev/null; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3.10 "$HOME"/.pyenv/versions/3.10.*/bin/python python3.11 \
        "$HOME"/.pyenv/versions/3.11.*/bin/python python3; do
        if fits "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo 'error: needs Python 3.10 or 3.11; PYTHON names one' >&2
    return 2
}

make_environment() {
    local python specification=$PACKAGES
    python=$(find_python)
    echo "making $ENVIRONMENT of $("$python" --version)" >&2
    rm -rf "$ENVIRONMENT"
    "$python" -m venv "$ENVIRONMENT"
    if curl -fsI --max-time 5 "$TORCH_INDEX/torch/" >/dev/null 2>&1; then
        "$ENVIRONMENT/bin/python" -m pip install -qq --no-compile --index-url "$TORCH_INDEX" \
            torch==2.1.2 torchvision==0.16.2
    fi
    # shellcheck disable=SC2086  # several names
    (cd / && "$ENVIRONMENT/bin/python" -m pip install -qq --no-compile $specification)
    printf '%s\n' "$PACKAGES" >"$ENVIRONMENT/made-of"
}

[[ $(cat "$ENVIRONMENT/made-of" 2>/dev/null) == "$PACKAGES" ]] || make_environment
made=$((SECONDS - START))
[[ ${1:-} != --environment ]] || exit 0
CORES=$(env -u OMP_NUM_THREADS nproc)
export OMP_NUM_THREADS=1 PYTHONPATH="$ROOT"
arguments=("$@")
[[ $# -gt 0 ]] || arguments=("${TESTS[@]}")
status=0
"$ENVIRONMENT/bin/python" -m pytest -q -n "${WORKERS:-$((CORES < 4 ? CORES : 4))}" --dist worksteal \
    -p no:warnings "${arguments[@]}" || status=$?
printf 'torch 2.1, Python 3.10: %s; environment %d s, tests %d s\n' \
    "$([[ $status = 0 ]] && echo passed || echo FAILED)" "$made" $((SECONDS - START - made))
exit "$status"
