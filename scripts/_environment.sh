# shellcheck shell=bash
# Sourced by scripts/quickstart and scripts/test: a virtual environment in .venv with lit-rl installed from this folder.
#
#   LIT_RL_PYTHON       the Python to make .venv with (default: python3, or the first python3.11 or newer found)
#   LIT_RL_TORCH        what to install as torch, for pip (default: the version in constraints.txt)
#   LIT_RL_TORCH_INDEX  address of the package index to take torch from
#
# Otherwise pip's own configuration holds. A change of these, of pyproject.toml or of constraints.txt installs anew.

VENV=.venv
STAMP=$VENV/lit-rl-installed # first line: what was installed from; then one extra a line

say() { printf '==> %s\n' "$*"; }

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    local candidate
    # shellcheck disable=SC2086
    for candidate in ${LIT_RL_PYTHON:-python3 python3.13 python3.12 python3.11 python3.14}; do
        if is_recent "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "No Python 3.11 or newer among: ${LIT_RL_PYTHON:-python3, python3.11 to python3.14}." \
        "Install one, or set LIT_RL_PYTHON to its path."
}

make_venv() {
    local python
    if [ -x "$VENV/bin/python" ]; then
        is_recent "$VENV/bin/python" || fail "$VENV holds a Python older than 3.11. Move that folder away and try again."
        "$VENV/bin/python" -c 'import pip' 2>/dev/null || "$VENV/bin/python" -m ensurepip >/dev/null
        return
    fi
    python=$(find_python)
    say "Making $VENV with $("$python" --version)"
    # --clear: what may be there has no Python that runs.
    "$python" -m venv --clear "$VENV" ||
        fail "'$python -m venv' does not work. On Debian and Ubuntu: apt-get install python3-venv"
}

pip_install() { "$VENV/bin/python" -m pip install --disable-pip-version-check "$@"; }

has_nvidia() { [ -e /dev/nvidia0 ] || nvidia-smi -L >/dev/null 2>&1; }

can_compile() {
    "${CC:-cc}" --version >/dev/null 2>&1 &&
        "$VENV/bin/python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))'
}

# pip cannot be asked for "the CPU build". Where that is not simply the default, it is looked for in this order: a wheel
# on this machine, a release marked +cpu in any configured index, PyTorch's own CPU index, whose address uv knows.
install_cpu_torch() {
    if [ "$(uname -s)" != Linux ]; then
        pip_install "$1"
    elif pip_install --quiet --no-index --no-deps "$1" 2>/dev/null; then
        pip_install "$1" # its dependencies
    elif [[ $1 =~ ^torch==[0-9.]+$ ]] && pip_install --quiet --no-deps "$1+cpu" 2>/dev/null; then
        pip_install "$1+cpu"
    elif pip_install --quiet uv && "$VENV/bin/python" -m uv pip install --python "$VENV/bin/python" --torch-backend cpu "$1"; then
        return
    else
        say "No CPU build of $1 found: taking the default build, up to 3 GB with its CUDA libraries." \
            "Set LIT_RL_TORCH_INDEX to an index with CPU builds to avoid that."
        pip_install "$1"
    fi
}

install_torch() {
    local torch=${LIT_RL_TORCH:-$(grep '^torch==' constraints.txt)}
    if [ -n "${LIT_RL_TORCH_INDEX:-}" ]; then
        say "Installing $torch from LIT_RL_TORCH_INDEX"
        pip_install --index-url "$LIT_RL_TORCH_INDEX" "$torch"
    elif [ -n "${LIT_RL_TORCH:-}" ]; then
        say "Installing $torch, as LIT_RL_TORCH says"
        pip_install "$torch"
    elif has_nvidia; then
        say "Installing $torch for the NVIDIA device found: a download of up to 3 GB, unless pip has it already"
        pip_install "$torch"
    else
        say "Installing the CPU build of $torch, for no NVIDIA device was found: a download of about 200 MB"
        install_cpu_torch "$torch"
    fi
}

# Usage: ensure_environment EXTRA...   where "core" stands for no extra. Does nothing when all of it is there.
ensure_environment() {
    local key extras target
    make_venv
    key=$({ cat pyproject.toml constraints.txt && pwd && echo "${LIT_RL_TORCH:-} ${LIT_RL_TORCH_INDEX:-}"; } | cksum)
    touch "$STAMP"
    # Extras once installed stay, whichever script asked for them.
    extras=$({ tail -n +2 "$STAMP" && printf '%s\n' "$@"; } | sort -u)
    if [ "$(cat "$STAMP")" = "$(printf '%s\n' "$key" "$extras")" ]; then
        return
    fi
    printf '%s\n' interrupted "$extras" >"$STAMP"
    install_torch
    target=$(echo "$extras" | grep -vx core | paste -sd, - || true)
    say "Installing lit-rl${target:+ [$target]} and what it needs: a download of about 200 MB, 1 GB on disk"
    # Whichever torch is there now stays.
    grep -v '^torch==' constraints.txt >"$VENV/constraints.txt"
    pip_install --constraint "$VENV/constraints.txt" --editable ".${target:+[$target]}"
    printf '%s\n' "$key" "$extras" >"$STAMP"
}
