#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Set up lrm_ros in .venv from requirements.lock, and software Vulkan where there is no GPU driver. Safe to run again.
# Changes nothing outside the repository but system packages; PYTHON=/path/to/python chooses the interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=.venv
. tools/uv.sh
say() { printf '%s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# --- system packages ------------------------------------------------------------------------------------------------

# Run a command as root: directly, through sudo (which may ask at a terminal), or say what to type.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        sudo "$@"
    else
        die "system packages are missing and this user cannot install them. As root, run:
    $*"
    fi
}

distribution() { . /etc/os-release && printf '%s' "${ID}:${VERSION_CODENAME:-}"; }

apt_install() {
    command -v apt-get >/dev/null || die "please install with this system's package manager: $*"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

# Debian 12's own Mesa cannot render what the twin needs; its backports can. They are read for this one installation from
# a copy of the machine's own sources: nothing is added to /etc/apt.
apt_install_backports() {
    local suites
    sources=$(mktemp -d)
    trap 'rm -rf "$sources"' EXIT
    chmod 755 "$sources"
    cp /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list "$sources"/ 2>/dev/null || true
    [ ! -s /etc/apt/sources.list ] || cp /etc/apt/sources.list "$sources"/machine.list
    .venv/bin/python tools/backports.py "$sources" > "$sources/lrm-backports.sources"
    chmod 644 "$sources"/*
    suites=(-o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$sources")
    as_root apt-get "${suites[@]}" update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get "${suites[@]}" install -y -q -t bookworm-backports \
        --no-install-recommends "$@"
}

install_vulkan() {
    local packages=(mesa-vulkan-drivers libvulkan1 libgl1 libegl1)
    say "setup: no Vulkan device can render yet; installing Mesa's software Vulkan"
    case $(distribution) in
        debian:bookworm) apt_install_backports "${packages[@]}" ;;
        *) apt_install "${packages[@]}" ;;
    esac
}

# --- Python -----------------------------------------------------------------------------------------------------------

usable() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.12 python3.11 python3.13}; do
        if command -v "$candidate" >/dev/null && usable "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

make_venv() {
    local python
    if [ -n "${PYTHON:-}" ] && ! find_python >/dev/null; then
        die "PYTHON=$PYTHON is not Python 3.11, 3.12 or 3.13"
    fi
    if [ -x .venv/bin/python ] && usable .venv/bin/python; then
        return
    fi
    if ! python=$(find_python); then
        say "setup: no Python 3.11 to 3.13 found; installing python3.11"
        apt_install python3.11 python3.11-venv
        python=$(find_python) || die "need Python 3.11, 3.12 or 3.13; install one and run 'PYTHON=/path/to/it make setup'"
    fi
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        apt_install "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    fi
    say "setup: making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
}

install_packages() {
    local uv
    pip_settings_for_uv
    uv=$(find_uv)
    say "setup: installing $(grep -c '==' requirements.lock) packages from requirements.lock (1 to 4 minutes)"
    "$uv" pip install --python .venv/bin/python --no-deps -r requirements.lock
    "$uv" pip install --python .venv/bin/python --no-deps --no-build-isolation -q --editable .
    link_share
}

# An editable installation has no data files; link them, so that ros2 launch and ros2 run work from .venv as well.
# Each file by itself: ros2 launch does not follow a link to a folder.
link_share() {
    local share=.venv/share/lrm_ros file
    rm -rf $share .venv/lib/lrm_ros
    mkdir -p .venv/share/ament_index/resource_index/packages $share/launch $share/config .venv/lib/lrm_ros
    ln -sfn "$PWD/resource/lrm_ros" .venv/share/ament_index/resource_index/packages/lrm_ros
    for file in package.xml launch/*.launch.py config/*.*; do ln -s "$PWD/$file" "$share/$file"; done
    for file in .venv/bin/lrm-*; do ln -s "$PWD/$file" ".venv/lib/lrm_ros/${file##*/lrm-}"; done
}

# --- the walk ---------------------------------------------------------------------------------------------------------

can_render() { .venv/bin/python -m lrm_ros.doctor --only vulkan >/dev/null 2>&1; }

stamp=.venv/.setup-$({ cat requirements.lock setup.py tools/setup.sh tools/uv.sh; ls launch config; } | sha256sum | cut -c1-16)
if [ -e "$stamp" ] && usable .venv/bin/python; then
    say "setup: .venv is up to date"
    exit 0
fi
make_venv
install_packages
if ! can_render; then
    install_vulkan
    can_render || { .venv/bin/python -m lrm_ros.doctor --only vulkan; exit 1; }
fi
rm -f .venv/.setup-*
touch "$stamp"
say "setup: done. Next: 'make demo', 'make test', or '. .venv/bin/activate' and 'lrm doctor'"
