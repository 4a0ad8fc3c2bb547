# What scripts/test and scripts/demo share: a Python, an environment of our own, one clear line where something fails.
# Sourced, not run. Callers set `me` (their name).

started_s=$SECONDS

say() { printf '== %s [%d s]\n' "$*" "$((SECONDS - started_s))"; }

die() {
  printf '%s: error: %s\n' "$me" "$*" >&2
  exit 1
}

# The first Python 3.11 or newer that runs: PYTHON, python3, then by version (a version manager's shim may be there and
# not run).
find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  die "no Python 3.11 or newer found: install one, or name it by PYTHON=/path/to/python3.11"
}

# One run at a time in a folder: two would install over each other.
hold() {
  mkdir -p "$1"
  command -v flock >/dev/null || return 0
  exec 9>"$1/lock"
  flock -n 9 || { say "waiting for another $me that uses $1"; flock 9; }
}

# Make the environment $1 if it is not there or its Python is gone, with a pip that knows dependency groups (25.1).
make_venv() {
  local python
  if ! "$1/bin/python" -c '' 2>/dev/null; then
    python=$(find_python) || exit 1
    say "making an environment in $1"
    "$python" -m venv --clear "$1" || die "$python cannot make environments (on Debian: apt install python3-venv)"
  fi
  "$1/bin/python" -m pip install --quiet 'pip>=25.1' || die "pip could not update itself: is the package index reachable?"
}
