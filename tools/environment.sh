#!/usr/bin/env bash
# Makes the virtual environment that tools/demo, tools/test and tools/check run in, and goes to the repository's root.
#
# Sourced by those three. `ready_environment` does nothing when .venv holds what pyproject.toml and constraints.txt ask
# for, which a stamp inside it says; the stamp is written last, so an interrupted installation is taken up again.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
readonly VENV=.venv
readonly VENV_PYTHON=.venv/bin/python
readonly STAMP=.venv/edgekd-stamp
readonly MAKING=.venv/edgekd-making # there while the bare environment is being made
# which tests are fast, and how they run side by side: those of a file together, for they share what is dear to make
# FAST leaves out what is marked `slow` or `devices` and includes what is `whole`; tools/check takes FAST and not whole
# shellcheck disable=SC2034 # used by tools/check and tools/test
readonly FAST="not slow and not devices" SPREAD=(-n auto --maxprocesses 4 --dist loadfile -p no:logging)
unset PYTHONDONTWRITEBYTECODE # without kept bytecode every worker compiles all tests anew, for seconds

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

list() { printf '%s, ' "$@" | sed 's/, $//'; }

die() {
    say "$*"
    exit 1
}

ready_environment() {
    if [[ -f $STAMP && $(wanted_stamp) == "$(<"$STAMP")" ]]; then
        return
    fi
    make_bare_environment
    say "installing edgekd and what it needs into $VENV; the first time takes a few minutes"
    rm -f "$STAMP"
    "$VENV_PYTHON" -m pip install --quiet --disable-pip-version-check --no-input \
        --constraint constraints.txt --editable '.[dev]' </dev/null ||
        die "pip could not install edgekd (see above); run this again once that is put right"
    local stamp
    stamp=$(wanted_stamp)
    [[ $stamp ]] || die "$VENV_PYTHON stopped running during the installation; remove $VENV and run this again"
    printf '%s\n' "$stamp" >"$STAMP.new"
    mv "$STAMP.new" "$STAMP"
}

# What an installation depends on: the two files, the interpreter, and where the repository lies (it is installed as a
# link to that place). Prints nothing where the interpreter does not run.
wanted_stamp() {
    "$VENV_PYTHON" - pyproject.toml constraints.txt <<'PYTHON' 2>/dev/null || true
import hashlib, os, pathlib, sys

files = [pathlib.Path(name).read_text(encoding="utf-8") for name in sys.argv[1:]]
print(hashlib.sha256("\0".join([*files, sys.version, os.getcwd()]).encode()).hexdigest())
PYTHON
}

make_bare_environment() {
    if [[ -e $VENV && ! -e $MAKING ]]; then
        # without pyvenv.cfg pip would install into the interpreter that bin/python links to
        if [[ ! -f $VENV/pyvenv.cfg ]] || ! "$VENV_PYTHON" -m pip --version >/dev/null 2>&1; then
            die "$VENV is no virtual environment with a pip that runs; remove it and run this again"
        fi
        "$VENV_PYTHON" -c "$IS_NEW_ENOUGH" || die "$VENV holds a Python before 3.11; remove it and run this again"
        return
    fi
    find_python
    say "making $VENV with $("$PYTHON" --version)"
    mkdir -p "$VENV"
    : >"$MAKING"
    find "$VENV" -mindepth 1 -maxdepth 1 ! -path "$MAKING" -exec rm -rf {} + # what an interrupted attempt left
    "$PYTHON" -m venv "$VENV" || die "$PYTHON could not make $VENV (see above)"
    rm "$MAKING"
}

readonly IS_NEW_ENOUGH='import sys; sys.exit(sys.version_info < (3, 11))'
readonly IS_COMPLETE='import ensurepip, venv' # some distributions pack these apart

# Sets PYTHON; 3.11 is asked for first because constraints.txt was made with it. A name on the PATH is no proof of an
# interpreter: a version manager's shim may stand for a version that is not chosen.
find_python() {
    local incomplete=''
    for PYTHON in python3.11 python3.12 python3.13 python3; do
        "$PYTHON" -c "$IS_NEW_ENOUGH" 2>/dev/null || continue
        "$PYTHON" -c "$IS_COMPLETE" 2>/dev/null && return
        incomplete=$PYTHON
    done
    [[ $incomplete ]] || die "no Python 3.11 or later is on the PATH; install one"
    PYTHON=$incomplete
    install_system_packages "${incomplete##*/}-venv" && "$PYTHON" -c "$IS_COMPLETE" 2>/dev/null && return
    die "$incomplete comes without venv and ensurepip; install its package $incomplete-venv"
}

# Installs those packages of the distribution that are missing, where this may be done; fails otherwise, quietly but for
# a failing apt-get.
install_system_packages() {
    if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
        return 1
    fi
    local package missing=()
    for package in "$@"; do
        dpkg-query --show --showformat '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    say "installing system packages: ${missing[*]}"
    local log
    log=$(mktemp)
    if { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${missing[@]}"; } \
        >"$log" 2>&1 </dev/null; then
        rm -f "$log"
        return
    fi
    say "apt-get could not install ${missing[*]}: $(grep -m 1 '^E:' "$log" || tail -n 1 "$log")"
    rm -f "$log"
    return 1
}

# The tests of phones on USB load libusb, which pip does not bring on Linux.
need_libusb() {
    "$VENV_PYTHON" -c 'import usb1; usb1.loadLibrary()' 2>/dev/null && return
    install_system_packages libusb-1.0-0 || die "tests of phones on USB need libusb-1.0; install it"
}
