#!/usr/bin/env bash
# Train with several processes on this machine (GPUs, or CPU with gloo); or on several machines:
# NNODES=2 NODE_RANK=0 MASTER_ADDR=host bash tools/dist_train.sh CONFIG 8
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: bash tools/dist_train.sh CONFIG PROCESSES [flags of tools/train.py]" >&2
    exit 2
fi
source "$(dirname "$0")/again.sh"
remember 'PORT MASTER_ADDR NODE_RANK NNODES' "$0" "$@"
config=$1 processes=$2
shift 2
# torchrun, without a traceback of its own where the processes have said why they end
launcher=(torchrun)
python=$(dirname "$(command -v torchrun || true)")/python
if [ -x "$python" ]; then launcher=("$python" -m hybrid_mm.run.launcher); fi
exec "${launcher[@]}" \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$processes" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
