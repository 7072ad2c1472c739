#!/usr/bin/env bash
# Sets up everything this project needs: Python environment, torch, mmcv with its operators, the
# OneDL builds of MMEngine, MMDetection, MMSegmentation and MMPretrain, and this package in editable
# mode. Every step is skipped when it is already in place, so a second run takes seconds and an
# interrupted one continues. The last line on stdout is the Python to use:
#
#     PYTHON=$(bash tools/setup.sh)
#     bash tools/setup.sh --dry-run     only prints what would be done
#
# The active virtual or conda environment is used if there is one (conda's `base` is left alone),
# otherwise `.venv` in the project. Python and torch are chosen so that a wheel of mmcv fits; mmcv is
# built only if there is none (tools/setup_plan.py). Environment variables:
#
#     PYTHON          interpreter that `.venv` is made from (3.10, 3.11 or 3.12)
#     TORCH_SPEC      what is installed when torch is missing, e.g.
#                     "torch==2.10.0 torchvision --index-url https://download.pytorch.org/whl/cpu"
#     PIP_FIND_LINKS  more places where pip looks for wheels (all of pip's own variables work)
#     MMCV_BASE_URL   index of mmcv wheels (https://mmwheels.onedl.ai)
#     TORCH_BASE_URL  index of CPU and CUDA builds of torch (https://download.pytorch.org/whl)
#     MAX_JOBS        compilers that run at once when mmcv has to be built
#     MMCV_CPU_ONLY   1: accept or build mmcv without CUDA operators although a GPU is visible
#     SETUP_UV        0: install with pip although uv is there
#     SETUP_EXTRAS    what is installed with this package ("onedl,test")
#     XDG_CACHE_HOME  built mmcv wheels are kept in its folder hybrid_mm (default ~/.cache)
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/hybrid_mm
STAMP_NAME=.hybrid_mm-setup
PY=             # the environment's interpreter, set by choose_environment
OWN_ENV=        # non-empty if the environment is the project's own .venv
BASE=           # the interpreter that .venv is made from, set by make_plan
PLAN_TORCH=     # what is installed as torch, set by make_plan
PLAN_LINKS=     # the page with the wheel of mmcv, if that is on the index of mmcv wheels
INDEX=yes       # `no` if that index did not answer
UV=()           # uv with pip's settings as its arguments, empty if pip installs
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore

say() { printf '[setup] %s\n' "$*" >&2; }
die() { printf '[setup] ERROR: %s\n' "$*" >&2; exit 1; }

# pip_install ARGUMENTS...: installs with uv if it is there, and with pip if uv fails. Modules are
# compiled when they are first imported: most never are, and all of them take a minute.
pip_install() {
    local quiet=(-qq) silent=(--quiet)  # only errors, where nobody watches progress bars
    [[ -t 2 ]] && quiet=() && silent=()
    # From / so that no folder of the project is taken for an installed package.
    if ((${#UV[@]})); then
        (cd / && "${UV[@]}" "${silent[@]}" --python "$PY" "$@") >&2 && return
        say 'uv could not install this: pip tries'
    fi
    (cd / && "$PY" -m pip install --no-compile "${quiet[@]}" "$@") >&2
}

# Runs Python code given on stdin from a neutral folder.
py() { (cd / && "$PY" - "$@"); }

# need_disk FOLDER GIGABYTES PURPOSE
need_disk() {
    local folder=$1 free
    while [[ ! -d $folder ]]; do folder=$(dirname "$folder"); done
    free=$(df -Pk "$folder" | awk 'NR == 2 {print int($4 / 1024 / 1024)}')
    ((free >= $2)) || die "$3 needs about $2 GB in $folder but only $free GB are free:" \
        "free some space, or use another disk, and run this again."
}

# Everything is installed from /: paths that are relative to the user's folder are made absolute.
absolute_paths() {
    local name word words
    for name in PIP_FIND_LINKS PIP_CONSTRAINT; do
        words=
        for word in ${!name:-}; do
            [[ ! -e $word ]] || word=$(realpath "$word")
            words+="${words:+ }$word"
        done
        [[ -z $words ]] || export "$name=$words"
    done
}

# --- environment ---------------------------------------------------------------------------------

supported_python() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}

# A Python that can run tools/setup_plan.py, which then finds all others. Each is run, not just
# looked up: a pyenv shim exists for versions that are not selected.
find_python() {
    local candidate found
    if [[ -n ${PYTHON:-} ]]; then
        supported_python "$PYTHON" || die "PYTHON=$PYTHON is not a working Python 3.10, 3.11 or" \
            "3.12: unset it or point it to one."
        printf '%s\n' "$PYTHON"
        return
    fi
    for candidate in python3 python python3.12 python3.11 python3.10 \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[0-9].*/bin/python3; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    found=$(python3 --version 2>/dev/null) || found='no python3'
    die "no Python 3.10, 3.11 or 3.12 found ($found): install one (e.g. apt install python3.12" \
        "python3.12-venv python3.12-dev) or set PYTHON=/path/to/python3.12."
}

# Sets PY and OWN_ENV; an environment that exists is checked.
choose_environment() {
    local prefix=''
    if [[ -n ${VIRTUAL_ENV:-} ]]; then
        prefix=$VIRTUAL_ENV
    elif [[ -n ${CONDA_PREFIX:-} && ${CONDA_DEFAULT_ENV:-} != base ]]; then
        prefix=$CONDA_PREFIX
    fi
    if [[ -n $prefix && $(realpath -m "$prefix") != "$(realpath -m "$ROOT/.venv")" ]]; then
        PY=$prefix/bin/python
        "$PY" -c '' 2>/dev/null || die "the active environment $prefix has no working Python:" \
            "deactivate it and run this again (a .venv is made then)."
        supported_python "$PY" || die "the active environment $prefix has" \
            "$("$PY" --version 2>&1); Python 3.10, 3.11 or 3.12 is needed: deactivate it and run" \
            "this again (a .venv is made then)."
    else
        OWN_ENV=1
        PY=$ROOT/.venv/bin/python
        # A dead interpreter link (moved or removed Python) cannot be repaired by venv.
        if [[ -L $PY || -e $PY ]] && ! "$PY" -c '' 2>/dev/null; then
            die "the Python of $ROOT/.venv no longer works: rm -rf $ROOT/.venv and run this again."
        fi
        if [[ -x $PY ]] && ! supported_python "$PY"; then
            die "$ROOT/.venv has $("$PY" --version 2>&1); Python 3.10, 3.11 or 3.12 is needed:" \
                "rm -rf $ROOT/.venv and run this again."
        fi
    fi
}

# make_plan: what is to be installed, given what is there. It says so and sets the variables above.
make_plan() {
    local runner=$PY answers key value uv=() torch arguments=(--cache "$CACHE/wheels")
    if "$PY" -c '' 2>/dev/null; then
        arguments+=(--python "$PY")
        if mmcv_works >/dev/null; then
            say 'plan: torch and mmcv stay as they are'
            arguments+=(--settings)
        else
            torch=$(installed_torch)
            arguments+=(--installed "$torch")
        fi
    else
        runner=$(find_python)
        [[ -z ${PYTHON:-} ]] || arguments+=(--python "$runner")
    fi
    # -B: nothing is written into the project.
    answers=$("$runner" -B "$ROOT/tools/setup_plan.py" "${arguments[@]}") || exit 1
    while IFS=$'\t' read -r key value; do
        case $key in
            python) BASE=$value ;;
            torch) PLAN_TORCH=$value ;;
            links) PLAN_LINKS=$value ;;
            index) INDEX=$value ;;
            uv) uv+=("$value") ;;
            no-uv) uv=(); [[ ${SETUP_UV:-1} = 0 ]] || ! command -v uv >/dev/null ||
                say "pip installs although uv is there: $value" ;;
        esac
    done <<<"$answers"
    if ((${#uv[@]})) && [[ ${SETUP_UV:-1} != 0 ]] && uv --version >/dev/null 2>&1; then
        say "$(uv --version | head -n 1) installs, with pip's settings"
        UV=(uv pip install "${uv[@]}")
    fi
}

# The version of the torch in the environment, with its CUDA where it imports; or nothing.
installed_torch() {
    py <<'PYTHON' 2>/dev/null || true
from importlib.metadata import version

found = version('torch')
try:
    import torch

    found = torch.__version__
finally:
    print(found)
PYTHON
}

make_environment() {
    if ! "$PY" -c '' 2>/dev/null; then
        say "making .venv with $("$BASE" --version) ($BASE)"
        "$BASE" -m venv "$ROOT/.venv" >&2 || die "$BASE cannot make a virtual environment:" \
            "install its venv module (e.g. apt install $(basename "$BASE")-venv) and run again."
    fi
    "$PY" -m pip --version >/dev/null 2>&1 && return
    # uv makes environments without pip; an interrupted `python -m venv` leaves one without.
    if ((${#UV[@]})); then
        pip_install pip && return
    fi
    [[ -n $OWN_ENV ]] && "$PY" -m ensurepip >/dev/null 2>&1 && return
    die "$PY has no pip: run $PY -m ensurepip, then run this again."
}

# pip writes RECORD last, so a package without one is what an interrupted installation left.
check_half_installed() {
    local found folder
    found=$(py <<'PYTHON'
import pathlib
import sysconfig

for info in pathlib.Path(sysconfig.get_path('purelib')).glob('*.dist-info'):
    if not (info / 'RECORD').exists():
        print(info)
PYTHON
    )
    [[ -z $found ]] && return
    if [[ -n $OWN_ENV ]]; then
        while read -r folder; do
            say "$(basename "$folder" .dist-info) was left half-installed: installing it again"
            rm -r "$folder"
        done <<<"$found"
    else
        die "half-installed packages in the active environment: remove" \
            "$(tr '\n' ' ' <<<"$found")and run this again."
    fi
}

# Names the provider of each OpenMMLab module; two providers of one overwrite each other's files.
check_providers() {
    local verdict
    verdict=$(py <<'PYTHON'
from importlib.metadata import PackageNotFoundError, version

PAIRS = {'mmengine': 'onedl-mmengine', 'mmcv': 'onedl-mmcv', 'mmdet': 'onedl-mmdetection',
         'mmsegmentation': 'onedl-mmsegmentation', 'mmpretrain': 'onedl-mmpretrain'}


def installed(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def spaced(names):
    return ' '.join(sorted(names))


original = {name for name in [*PAIRS, 'mmcv-lite', 'mmcv-full'] if installed(name)}
onedl = {name for name in PAIRS.values() if installed(name)}
if original and onedl:
    print(f'both {spaced(original)} and {spaced(onedl)} are installed and overwrite each other: '
          f'pip uninstall -y {spaced(original | onedl)} and run this again.')
elif original:
    print(f'this environment has the original OpenMMLab packages ({spaced(original)}), on which '
          'the OneDL ones would be written: deactivate it and run this again (a .venv is made '
          'then), or keep them and only pip install -e .')
PYTHON
    )
    [[ -z $verdict ]] || die "$verdict"
}

# --- packages ------------------------------------------------------------------------------------

install_build_tools() {
    py <<'PYTHON' && return
import sys
from importlib.metadata import PackageNotFoundError, version

try:
    major = int(version('setuptools').split('.')[0])
    found = [version(name) for name in ('wheel', 'packaging', 'ninja', 'psutil')]
except PackageNotFoundError:
    sys.exit(1)
sys.exit(not 80 <= major < 82)
PYTHON
    say 'pip, setuptools, ninja'
    # setuptools 82 dropped pkg_resources, which parts of the stack still import.
    pip_install --upgrade pip 'setuptools>=80,<82' wheel 'packaging>=24.2' ninja psutil ||
        die 'pip could not reach a package index (see above): check the network or the proxy.'
}

install_torch() {
    local error version spec word
    if error=$( (cd / && "$PY" -c 'import torch, torchvision') 2>&1); then
        return
    fi
    version=$(py <<'PYTHON'
from importlib.metadata import PackageNotFoundError, version

try:
    print(version('torch'))
except PackageNotFoundError:
    pass
PYTHON
    )
    if [[ -n $version ]]; then
        (cd / && "$PY" -c 'import torch') >/dev/null 2>&1 || die "torch $version is installed but" \
            "does not import ($(tail -n 1 <<<"$error")): $PY -m pip uninstall -y torch torchvision" \
            "and run this again."
        if [[ $error == *"No module named 'torchvision'"* ]]; then
            say "torchvision for torch $version"
            pip_install torchvision "torch==$version" || die "no torchvision fits the installed" \
                "torch $version: $PY -m pip uninstall -y torch and run this again."
            return
        fi
        die "torchvision does not work with torch $version ($(tail -n 1 <<<"$error")):" \
            "$PY -m pip uninstall -y torchvision and run this again."
    fi
    spec=${TORCH_SPEC:-${PLAN_TORCH:-torch torchvision}}
    # A CPU build has 0.2 GB, one with CUDA several.
    if [[ $spec == *cpu* ]]; then
        need_disk "$(dirname "$PY")" 3 'torch'
        say "$spec: a few minutes"
    else
        need_disk "$(dirname "$PY")" 8 'torch'
        say "$spec: some gigabytes, a few minutes"
    fi
    for word in $spec; do
        case $word in
            --index-url* | --extra-index-url* | --find-links* | -i | -f | --pre | [!-]*) ;;
            *) local UV=() ;;  # an option that uv may not know
        esac
    done
    # shellcheck disable=SC2086  # several words on purpose
    pip_install $spec ||
        die 'torch could not be installed (see above): check network, disk and TORCH_SPEC.'
    error=$( (cd / && "$PY" -c 'import torch, torchvision') 2>&1) || die "torch was installed but" \
        "does not import ($(tail -n 1 <<<"$error")): set TORCH_SPEC to a build for this machine."
}

# shellcheck source=tools/setup_mmcv.sh
source "$ROOT/tools/setup_mmcv.sh"

# The stack pulls in both opencv-python and opencv-python-headless, which own the same files.
fix_cv2() {
    local plan
    plan=$(py <<'PYTHON'
import ctypes
import re
from importlib.metadata import distributions

flavours = {}
for dist in distributions():
    name = re.sub(r'[-_.]+', '-', dist.metadata['Name'] or '').lower()
    if name.startswith('opencv-') and 'python' in name:
        flavours[name] = dist.version
try:
    import cv2
    works = bool(cv2.__version__)
except Exception:
    works = False
if len(flavours) != 1 or not works:
    try:
        ctypes.CDLL('libGL.so.1')
        keep = 'opencv-python'
    except OSError:
        keep = 'opencv-python-headless'
    if len(flavours) == 1 and keep in flavours:  # the files of the right one are damaged
        keep = keep + '==' + flavours[keep]
    else:
        keep += '==' + max(flavours.values()) if flavours else '<4.13'
    print(keep, *flavours)
PYTHON
    )
    [[ -n $plan ]] || return 0
    local keep others
    read -r keep others <<<"$plan"
    say "cv2: leaving only $keep"
    # shellcheck disable=SC2086  # several names
    [[ -z $others ]] || "$PY" -m pip uninstall --quiet -y $others >&2
    pip_install --no-deps "$keep" || die "$keep could not be installed: check the network."
    if ! (cd / && "$PY" -c 'import cv2') 2>/dev/null; then
        "$PY" -m pip uninstall --quiet -y "${keep%%[=<]*}" >&2
        pip_install --no-deps "opencv-python-headless${keep#"${keep%%[=<]*}"}" ||
            die 'opencv-python-headless could not be installed: check the network.'
    fi
}

stamp() {
    (cd "$ROOT" && sha256sum pyproject.toml tools/setup* && echo "$ROOT ${SETUP_EXTRAS:-}" &&
        "$PY" --version) | sha256sum
}

# The stamp shows that set-up once finished; the imports show that its result still works.
in_place() {
    local file
    [[ -x $PY ]] || return 1
    file=$("$PY" -c 'import sys; print(sys.prefix)')/$STAMP_NAME
    [[ -e $file && $(cat "$file") == "$(stamp)" ]] || return 1
    py "$ROOT" <<'PYTHON' 2>/dev/null
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import torch

import mmcv._ext

missing = [name for name in ('torchvision', 'mmdet', 'mmseg', 'mmpretrain') if not find_spec(name)]
home = Path(find_spec('hybrid_mm').origin).parents[1]
sys.exit(bool(missing) or home.resolve() != Path(sys.argv[1]).resolve())
PYTHON
}

verify() {
    py <<'PYTHON'
import importlib
import sys

for name in ('torch', 'torchvision', 'mmengine', 'mmcv.ops', 'mmdet', 'mmseg', 'mmpretrain',
             'hybrid_mm.registry'):
    try:
        importlib.import_module(name)
    except Exception as error:
        print(f'import {name} fails: {type(error).__name__}: {str(error).splitlines()[0]}')
        sys.exit(1)
PYTHON
}

main() {
    local error dry_run=
    case ${1:-} in
        '') ;;
        --dry-run) dry_run=1 ;;
        -h | --help) awk 'NR > 1 && !/^#/ {exit} NR > 1' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;;
        *) die "unknown argument $1 (there is only --dry-run; --help says what this does)" ;;
    esac
    absolute_paths
    choose_environment
    if in_place; then
        [[ -z $dry_run ]] || say 'everything is in place: nothing would be done'
    elif [[ -n $dry_run ]]; then
        [[ ! -x $PY ]] || check_providers
        make_plan
        say "environment: ${PY%/bin/python}$([[ -x $PY ]] || echo ', which would be made')"
        say 'nothing was changed'
    else
        mkdir -p "$CACHE" || die "cannot write to $CACHE: set XDG_CACHE_HOME to a folder of yours."
        if command -v flock >/dev/null; then  # two set-ups at once would undo each other's work
            exec 9>"$CACHE/lock"
            flock -n 9 || { say 'waiting for another set-up to end'; flock 9; }
        fi
        make_plan
        make_environment
        check_half_installed
        check_providers
        install_build_tools
        install_torch
        install_mmcv
        say 'OpenMMLab packages, this package and the tools for its tests'
        pip_install --editable "${ROOT}[${SETUP_EXTRAS:-onedl,test}]" ||
            die 'the packages could not be installed (see above): check the network.'
        fix_cv2
        error=$(verify) || die "$error; $PY $ROOT/tools/check_env.py says more."
        stamp >"$("$PY" -c 'import sys; print(sys.prefix)')/$STAMP_NAME"
        say "ready: $PY"
    fi
    echo "$PY"
}

# Sourced by tests: only the functions.
if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    main "$@"
fi
