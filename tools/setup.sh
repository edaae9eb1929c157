#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Set up lrm_ros in .venv, and software Vulkan where there is no GPU driver. Safe to run again; changes nothing outside
# the repository but system packages. Python 3.12 or 3.13 where the machine has one (requirements.lock), else 3.11
# (requirements-3.11.lock: an older LeRobot). PYTHON=/path/to/python chooses the interpreter, VENV=FOLDER the place.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export VENV=${VENV:-.venv}
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
    "$VENV/bin/python" tools/backports.py "$sources" > "$sources/lrm-backports.sources"
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

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

usable() { case $(version_of "$1") in 3.11 | 3.12 | 3.13) ;; *) return 1 ;; esac; }

# The interpreter to use: the one asked for, else the newest supported one that LeRobot's newest release runs on.
choose_python() {
    local newest
    if [ -n "${PYTHON:-}" ]; then
        usable "$PYTHON" || die "PYTHON=$PYTHON is not Python 3.11, 3.12 or 3.13"
        command -v "$PYTHON"
    elif ! tools/find_python.sh 3.12 3.13 3.11; then
        newest=python3.12
        apt-cache show python3.12 >/dev/null 2>&1 || newest=python3.11
        say "setup: no Python 3.11 to 3.13 found; installing $newest" >&2
        apt_install $newest $newest-venv >&2
        tools/find_python.sh "${newest#python}" || die "need Python 3.11 to 3.13; run 'PYTHON=/path/to/it make setup'"
    fi
}

# Whether the environment that is there can stay: one that somebody chose is never replaced unasked.
fits() {
    usable "$VENV/bin/python" || return 1
    [ -z "${PYTHON:-}" ] || [ "$(version_of "$PYTHON")" = "$(version_of "$VENV/bin/python")" ]
}

make_venv() {
    local python
    if fits; then
        if [ -z "${PYTHON:-}" ] && [ "$(version_of "$VENV/bin/python")" = 3.11 ] && python=$(tools/find_python.sh 3.12 3.13); then
            say "setup: $VENV stays with Python 3.11; for today's LeRobot remove the folder, or PYTHON=$python make setup"
        fi
        return
    fi
    python=$(choose_python)
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        apt_install "python$(version_of "$python")-venv"
    fi
    say "setup: making $VENV with $("$python" --version)"
    "$python" -m venv --clear "$VENV"
}

lock_file() { case $(version_of "$VENV/bin/python") in 3.11) echo requirements-3.11.lock ;; *) echo requirements.lock ;; esac; }

install_packages() {
    local lock
    lock=$(lock_file)
    say "setup: installing $(grep -c '==' "$lock") packages from $lock (1 to 4 minutes)"
    one_opencv
    tools/uv.sh pip install --python "$VENV/bin/python" --no-deps -r "$lock"
    tools/uv.sh pip install --python "$VENV/bin/python" --no-deps --no-build-isolation -q --editable . ./lerobot_policy_act_small
    link_share
}

# Every OpenCV distribution is the same folder cv2, written over by the next: all go but the one of the lock.
one_opencv() {
    local others
    others=$(tools/uv.sh pip list --python "$VENV/bin/python" --format freeze 2>/dev/null \
        | sed -n 's/^\(opencv-[a-z-]*\)==.*/\1/p' | grep -vx opencv-python-headless || true)
    # shellcheck disable=SC2086  # several names
    [ -z "$others" ] || tools/uv.sh pip uninstall -q --python "$VENV/bin/python" $others opencv-python-headless
}

# An editable installation has no data files; link them, so that ros2 launch and ros2 run work from .venv as well.
# Each file by itself: ros2 launch does not follow a link to a folder.
link_share() {
    local share=$VENV/share/lrm_ros programs=$VENV/lib/lrm_ros file
    rm -rf "$share" "$programs"
    mkdir -p "$VENV/share/ament_index/resource_index/packages" "$share/launch" "$share/config" "$programs"
    ln -sfn "$PWD/resource/lrm_ros" "$VENV/share/ament_index/resource_index/packages/lrm_ros"
    for file in package.xml launch/*.launch.py config/*.*; do ln -s "$PWD/$file" "$share/$file"; done
    for file in "$VENV"/bin/lrm-*; do ln -s "$(realpath "$file")" "$programs/${file##*/lrm-}"; done
}

# --- the walk ---------------------------------------------------------------------------------------------------------

can_render() { "$VENV/bin/python" -m lrm_ros.graph.doctor --only vulkan >/dev/null 2>&1; }

stamp=$VENV/.setup-$({ cat requirements*.lock setup.py lerobot_policy_act_small/pyproject.toml tools/*.sh; ls launch config; } | sha256sum | cut -c1-16)
if [ -e "$stamp" ] && fits; then
    say "setup: $VENV is up to date"
    exit 0
fi
make_venv
install_packages
if ! can_render; then
    install_vulkan
    can_render || { "$VENV/bin/python" -m lrm_ros.graph.doctor --only vulkan; exit 1; }
fi
rm -f "$VENV"/.setup-*
touch "$stamp"
say "setup: done. Next: 'make demo', 'make test', or '. $VENV/bin/activate' and 'lrm doctor'"
