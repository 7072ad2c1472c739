# The part of tools/setup.sh that installs mmcv, from a wheel or by building it. It is sourced there
# and uses its PY, ROOT, CACHE and helper functions.
# shellcheck shell=bash

mmcv_requirement() { grep -o 'onedl-mmcv[^"]*' "$ROOT/pyproject.toml" | head -n 1; }

# Succeeds if mmcv's operators load, and on a machine with a GPU run on it. The reason goes to stdout.
mmcv_works() {
    py "${MMCV_CPU_ONLY:-0}" <<'PYTHON' 2>&1 | tail -n 1
import sys

import torch
from mmcv.ops import get_compiling_cuda_version, nms

if sys.argv[1] != '1' and torch.cuda.is_available():
    if get_compiling_cuda_version() == 'not available':
        sys.exit('its operators were built without CUDA but a GPU is visible')
    # A wheel may lack the code for this GPU: `no kernel image is available`.
    nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]).cuda(), torch.ones(1).cuda(), 0.5)
    torch.cuda.synchronize()
PYTHON
}

# mmcv_from WHERE PIP_ARGUMENTS...: installs a wheel and keeps it only if it works.
mmcv_from() {
    local where=$1 reason
    shift
    pip_install "$@" 2>/dev/null || return 1
    if reason=$(mmcv_works); then
        say "mmcv: wheel from $where"
        return 0
    fi
    say "mmcv: the wheel from $where does not fit this torch ($reason)"
    "$PY" -m pip uninstall --quiet -y onedl-mmcv >&2
    return 1
}

install_mmcv() {
    local key page requirement wheel devices public links=() similar=()
    mmcv_works >/dev/null && return
    requirement=$(mmcv_requirement)
    # What a wheel depends on: Python, torch with its CUDA, and the devices of CUDA operators.
    IFS=' ' read -r key page < <(py "${MMCV_CPU_ONLY:-0}" <<'PYTHON'
import platform
import sys

import torch

cuda = (torch.version.cuda or '').replace('.', '')
devices = 'cpu'
if torch.cuda.is_available() and sys.argv[1] != '1':
    count = range(torch.cuda.device_count())
    versions = {torch.cuda.get_device_capability(index) for index in count}
    devices = '_'.join(['cuda', *(f'{major}.{minor}' for major, minor in sorted(versions))])
major, minor = torch.__version__.split('.')[:2]
print(f'cp{sys.version_info.major}{sys.version_info.minor}-torch{torch.__version__}-'
      f'{devices}-{platform.machine()}',
      f'{"cpu" if devices == "cpu" else "cu" + cuda}-torch{major}{minor}0')
PYTHON
    )
    if "$PY" -m pip show onedl-mmcv >/dev/null 2>&1; then
        say 'mmcv: the installed one has no working operators: replacing it'
        "$PY" -m pip uninstall --quiet -y onedl-mmcv >&2
    fi
    # CPU operators do not depend on the CUDA of torch: +cu130 and +cpu take the same wheel.
    devices=${key#*-torch*-}
    public=${key%-"$devices"}
    public=${public%%+*}
    [[ $devices == cpu-* ]] && similar=("$CACHE/wheels/$public"{,+*}"-$devices"/onedl_mmcv-*.whl)
    for wheel in "$CACHE/wheels/$key"/onedl_mmcv-*.whl "${similar[@]}"; do
        [[ -e $wheel ]] && mmcv_from "$(dirname "$wheel")" "$wheel" && return
    done
    page=${MMCV_BASE_URL:-https://mmwheels.onedl.ai}/$page/simple/onedl-mmcv/index.html
    if [[ -n $PLAN_LINKS ]]; then
        links=(--find-links "$PLAN_LINKS")
    elif [[ $INDEX = yes ]] && py "$page" <<'PYTHON'
import sys
import urllib.request

try:
    urllib.request.urlopen(sys.argv[1], timeout=5).close()
except Exception:
    sys.exit(1)
PYTHON
    then
        links=(--find-links "$page")
    fi
    if ! mmcv_from 'the package index' --only-binary onedl-mmcv "${links[@]}" "$requirement"; then
        build_mmcv "$key" "$requirement"
        wheel=$(echo "$CACHE/wheels/$key"/onedl_mmcv-*.whl)
        mmcv_from "$(dirname "$wheel")" "$wheel" ||
            die "the mmcv built here does not load: run $PY -c 'import mmcv.ops' to see why."
    fi
}

# cxx_standard COMPILER LOG: the C++ standard that torch's headers ask for. Preprocessing alone
# raises their #error.
cxx_standard() {
    local compiler=$1 log=$2 standard folders
    folders=$(py 2>/dev/null <<'PYTHON'
import sysconfig

from torch.utils.cpp_extension import include_paths

print(*(f'-I{path}' for path in [*include_paths(), sysconfig.get_path('include')]), sep='\n')
PYTHON
    )
    mapfile -t folders <<<"$folders"
    for standard in 17 20 23; do
        if echo '#include <torch/extension.h>' | "$compiler" -E -x c++ "-std=c++$standard" \
            "${folders[@]}" - >/dev/null 2>"$log"; then
            echo "$standard"
            return
        fi
    done
    return 1
}

find_compiler() {
    local compiler
    for compiler in ${CXX:-} c++ g++ clang++; do
        if "$compiler" -x c++ -fsyntax-only - <<<'int main() {}' 2>/dev/null; then
            command -v "$compiler"
            return
        fi
    done
    die 'mmcv has to be built for this Python and torch but there is no C++ compiler: install one' \
        '(e.g. apt install g++), or set PIP_FIND_LINKS to a folder with a fitting onedl-mmcv wheel.'
}

# write_compiler FILE COMPILER STANDARD: mmcv's setup.py passes -std=c++17 last, so that no CXXFLAGS
# can override it, and torch 2.14 and later refuse it; this compiler swaps the flag.
write_compiler() {
    cat >"$1" <<WRAPPER
#!/bin/sh
for argument do
    shift
    [ "\$argument" = -std=c++17 ] && argument=-std=c++$3
    set -- "\$@" "\$argument"
done
exec '$2' "\$@"
WRAPPER
    chmod +x "$1"
}

# build_mmcv KEY REQUIREMENT: builds mmcv from its source distribution into the cache.
build_mmcv() {
    local key=$1 requirement=$2 compiler standard build=$CACHE/build/$1 include source jobs compiled devices
    compiler=$(find_compiler)
    include=$("$PY" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    [[ -e $include/Python.h ]] || die "mmcv has to be built but $include/Python.h is missing:" \
        "install Python's headers (e.g. apt install" \
        "python$("$PY" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-dev)."
    if [[ $key == *-cuda_* ]] && ! { [[ -n ${CUDA_HOME:-} && -x $CUDA_HOME/bin/nvcc ]] ||
        [[ -x /usr/local/cuda/bin/nvcc ]] || command -v nvcc >/dev/null; }; then
        die "mmcv has to be built with CUDA but nvcc is missing: install the CUDA toolkit" \
            "$("$PY" -c 'import torch; print(torch.version.cuda)') and set CUDA_HOME, or set" \
            "MMCV_CPU_ONLY=1 to go without a GPU, or choose a torch that has a wheel (TORCH_SPEC)."
    fi
    need_disk "$CACHE" 3 'building mmcv'
    mkdir -p "$build" "$CACHE/wheels/$key"
    standard=$(cxx_standard "$compiler" "$build/probe.log") || die "$compiler cannot read torch's" \
        "headers ($(grep -m 1 -E 'error' "$build/probe.log" || true)): install a newer compiler" \
        "(g++ 11 or later) and set CXX to it."
    if ! ls "$build"/onedl_mmcv-*.tar.gz >/dev/null 2>&1; then
        # Without build isolation here and below: in pip's isolated environment there is no torch,
        # and mmcv's setup.py then silently leaves out the operators.
        (cd / && "$PY" -m pip download -qq --no-deps --no-build-isolation \
            --no-binary onedl-mmcv --dest "$build" "$requirement") >&2 ||
            die "the source of $requirement could not be downloaded: check the network."
    fi
    source=$(echo "$build"/onedl_mmcv-*.tar.gz)
    if [[ ! -e ${source%.tar.gz}/setup.py ]]; then
        tar -xzf "$source" -C "$build" || { rm -f "$source"; die "$source is damaged and was" \
            "removed: run this again."; }
    fi
    write_compiler "$build/c++" "$compiler" "$standard"
    jobs=$("$PY" -B "$ROOT/tools/setup_plan.py" --jobs "$([[ $key == *-cuda_* ]] && echo cuda ||
        echo cpu)")
    compiled=$(find "${source%.tar.gz}" -name '*.o' | wc -l)
    say "building mmcv with C++$standard and $jobs compilers at once (log: $build/build.log)"
    ((compiled == 0)) || say "an earlier build is continued: $compiled files are compiled already"
    # The folder stays, and ninja takes up an interrupted build where it stopped. -g0 and -s: the
    # extension with debug symbols has 83 MB, without 2 MB.
    # shellcheck disable=SC2030,SC2031
    if ! (
        cd "${source%.tar.gz}"
        # Only for the devices at hand; without this, operators for all of them are compiled.
        if [[ $key == *-cuda_* ]]; then
            devices=${key#*-cuda_}
            devices=${devices%%-*}
            export FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-${devices//_/;}}
        else
            export FORCE_CUDA=0 CUDA_VISIBLE_DEVICES=
        fi
        export MAX_JOBS=$jobs CXX=$build/c++ MMCV_WITH_OPS=1
        export CFLAGS="${CFLAGS:-} -g0" LDFLAGS="${LDFLAGS:-} -s" PATH=${PY%/*}:$PATH
        "$PY" -m pip wheel --verbose --no-deps --no-build-isolation --wheel-dir "$build/wheel" . \
            2>&1 | tee "$build/build.log" | "$PY" -c "$SHOW_PROGRESS" "$compiled"
    ); then
        grep -E -m 5 '(error|Error|Killed)' "$build/build.log" >&2 || true
        die "mmcv was not built (log: $build/build.log): with \"Killed\", run again with MAX_JOBS=1;" \
            "what is compiled is kept."
    fi
    rm -f "$CACHE/wheels/$key"/*.whl
    mv "$build"/wheel/onedl_mmcv-*.whl "$CACHE/wheels/$key/"
    rm -r "$build"
}

# Turns ninja's "[n/m] ..." lines into one line with the time left (a line a minute in a log file).
# Its argument is the number of files that were compiled before.
SHOW_PROGRESS="
import re
import sys
import time

before = int(sys.argv[1])
start = time.time()
shown = 0
tty = sys.stderr.isatty()
for line in sys.stdin:
    if 'running build_ext' in line:  # pip's preparations are over
        start = time.time()
    match = re.search(r'\[(\d+)/(\d+)\]', line)
    if not match:
        continue
    done, total = map(int, match.groups())
    gone = time.time() - start
    left = gone / done * (total - done)
    if tty or done == total or time.time() - shown >= 60:
        shown = time.time()
        text = (f'[setup] mmcv: {before + done} of {before + total} files compiled, '
                f'{gone / 60:.1f} min gone, about {left / 60:.1f} min left')
        print('\r' + text if tty else text, end='' if tty else '\n', file=sys.stderr, flush=True)
if tty and shown:
    print(file=sys.stderr)
"
