#!/usr/bin/env bash
# Test with several processes on this machine (GPUs, or CPU with gloo); or on several machines:
# NNODES=2 NODE_RANK=0 MASTER_ADDR=host bash tools/dist_test.sh CONFIG CHECKPOINT 8
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: bash tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [flags of tools/test.py]" >&2
    exit 2
fi
source "$(dirname "$0")/again.sh"
remember 'PORT MASTER_ADDR NODE_RANK NNODES' "$0" "$@"
config=$1 checkpoint=$2 processes=$3
shift 3
# torchrun, without a traceback of its own where the processes have said why they end
launcher=(torchrun)
python=$(dirname "$(command -v torchrun || true)")/python
if [ -x "$python" ]; then launcher=("$python" -m hybrid_mm.run.launcher); fi
exec "${launcher[@]}" \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$processes" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    "$(dirname "$0")/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
