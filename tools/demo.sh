#!/usr/bin/env bash
# From nothing to a trained, evaluated and drawn detector and segmenter, in a few minutes on a CPU:
# set-up if it is missing, then tools/demo.py.
#
#     bash tools/demo.sh [OUTPUT_FOLDER] [--data FOLDER] [--reuse]
#
# Exit status 1 if a figure that the configs promise is missed. --help says more.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=$(bash "$ROOT/tools/setup.sh")
exec "$PYTHON" "$ROOT/tools/demo.py" "$@"
