# Shared by install, run and tests/run: which Python environment is used. Sourced, not run.

# Use the active environment, or .venv of the clone, which is made if absent. Argument: the clone's root.
activate_environment() {
  local root="$1" python="${PYTHON:-python3}"
  if [ -z "${VIRTUAL_ENV:-}" ] && [ -z "${CONDA_PREFIX:-}" ]; then
    if [ ! -f "$root/.venv/bin/activate" ]; then
      "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
        echo "CoLLaVO needs Python 3.11 or newer; '$python' is $("$python" --version 2>&1 || echo missing). Set PYTHON." >&2
        exit 2
      }
      echo "making a Python environment in .venv ..."
      "$python" -m venv "$root/.venv"
    fi
    # shellcheck disable=SC1091
    source "$root/.venv/bin/activate"
  fi
  python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "CoLLaVO needs Python 3.11 or newer; the active environment has $(python --version 2>&1)." >&2
    exit 2
  }
}

# Whether this machine has an NVIDIA GPU that its driver can see.
has_gpu() {
  command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1
}
