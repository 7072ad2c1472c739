#!/usr/bin/env bash
# Builds environments with the OpenMMLab releases that people have, installs this package into each
# from a built wheel, and runs checks there. Results are kept, and printed as a table.
#
#     bash tools/dev/matrix.sh                         all environments of tools/dev/matrix.yml
#     bash tools/dev/matrix.sh torch2.1                one; an interrupted run goes on where it was
#     bash tools/dev/matrix.sh torch2.1 --only heads   one check there
#     bash tools/dev/matrix.sh --list                  environments and checks
#     bash tools/dev/matrix.sh --dry-run               what would be installed and run
#     bash tools/dev/matrix.sh --write-docs            the kept results go into docs/installation.md
#
# All options: --help. An environment takes some 5 GB in ${XDG_CACHE_HOME:-~/.cache}/hybrid_mm/matrix
# while it is checked; what stays is the results and the wheels of mmcv, which take 20 minutes to
# build where pip finds none (PIP_FIND_LINKS is asked first). PYTHON is the Python that runs this
# (default: that of tools/setup.sh); it needs PyYAML and hatchling.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-$(bash "$ROOT/tools/setup.sh")}
exec "$PYTHON" "$ROOT/tools/dev/matrix.py" "$@"
