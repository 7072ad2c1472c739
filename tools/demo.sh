#!/usr/bin/env bash
# Train and evaluate a detector and a segmenter and draw their results, in a few minutes on a CPU:
# runs the set-up if it is missing, then tools/demo.py.
#
#     bash tools/demo.sh [OUTPUT_FOLDER] [--data FOLDER] [--reuse]
#
# Exit status 1 if a metric stays below the value in the config. See also --help.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=$(bash "$ROOT/tools/setup.sh")
exec "$PYTHON" "$ROOT/tools/demo.py" "$@"
