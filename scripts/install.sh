#!/bin/sh
# Install qrun for this user on Linux or macOS, and the engine that fits this machine. Asks nothing, needs no root.
#
# qrun comes by uv where there is one, else into an environment of its own. What is hard (which hardware, which engine)
# is decided by qrun itself, whose exit code and one line of error are passed on. The whole script is one function that
# is called in its last line: cut off while it is downloaded, it does nothing.
set -eu

package="qrun-llm"
child=""     # what runs now, for signals
grouped=""   # whether it has a process group of its own
unlinked=""  # an environment in the making, removed if we are interrupted

usage() {
  cat <<'END'
Usage: install.sh [options]        (in a pipe: ... | sh -s -- [options])

Install qrun and the engine that fits this machine; run again, it upgrades. From a checkout it installs that checkout,
otherwise the published package.

  --version VERSION    the published version to install
  --no-engine          install qrun alone
  --build              have the engine built for this machine (minutes; needs a C++ compiler)
  --allow-cpu-engine   accept an engine for the CPU alone on a machine with a GPU
  --uninstall          remove qrun, its engines and all it keeps; models in the Hugging Face cache stay
  --help               show this

  QRUN_SPEC            what to install instead, as pip and uv name it: a path, a wheel, a repository, "qrun-llm==1.2"
  QRUN_PYTHON          the Python (3.11 or newer) to use
  XDG_BIN_HOME         where the command goes (default: ~/.local/bin)
  QRUN_DATA_DIR, QRUN_CACHE_DIR, QRUN_STATE_DIR    where qrun keeps what it needs
END
}

say() { printf '%s\n' "$*"; }

die() { # EXIT_CODE, then one line for people
  exit_code=$1
  shift
  printf 'install.sh: error: %s\n' "$(printf '%s' "$*" | tr '\n' ' ')" >&2
  exit "$exit_code"
}

main() {
  read_arguments "$@"
  find_folders
  # What others may not write to stays theirs alone where the user wants that; it is never wider than this.
  umask u=rwx,g-w,o-w
  # These would put packages elsewhere, or hide the ones that are meant.
  unset PIP_TARGET PIP_PREFIX PIP_ROOT PIP_USER PIP_REQUIRE_VIRTUALENV PYTHONHOME PYTHONPATH
  if [ "$action" = uninstall ]; then
    uninstall
    return
  fi
  trap 'stop 130' INT
  trap 'stop 143' TERM
  trap 'stop 129' HUP
  install_qrun
  show_hardware
  engine_code=0
  [ "$engine" = no ] || install_engine || engine_code=$?
  tell_what_to_type
  return "$engine_code"
}

read_arguments() {
  action=install engine=yes version='' build='' allow_cpu=''
  while [ $# -gt 0 ]; do
    case $1 in
      --version)
        [ -n "${2:-}" ] || die 2 "--version needs a version. See --help."
        version=$2
        shift
        ;;
      --version=?*) version=${1#--version=} ;;
      --no-engine) engine=no ;;
      --build) build=--build ;;
      --allow-cpu-engine) allow_cpu=--allow-cpu-engine ;;
      --uninstall) action=uninstall ;;
      -h | --help)
        usage
        exit 0
        ;;
      *) die 2 "unknown argument $1. See --help." ;;
    esac
    shift
  done
}

# Where things go: the folders that qrun itself uses (platformdirs' rules; a test holds the two together).
find_folders() {
  [ -n "${HOME:-}" ] || die 1 "HOME is not set: set it to your home folder."
  system=$(uname -s)
  xdg_data=$(absolute "${XDG_DATA_HOME:-}" "$HOME/.local/share")
  case $system in
    Linux)
      data=$xdg_data/qrun
      cache=$(absolute "${XDG_CACHE_HOME:-}" "$HOME/.cache")/qrun
      state=$(absolute "${XDG_STATE_HOME:-}" "$HOME/.local/state")/qrun
      ;;
    Darwin)
      data=$(absolute "${XDG_DATA_HOME:-}" "$HOME/Library/Application Support")/qrun
      cache=$(absolute "${XDG_CACHE_HOME:-}" "$HOME/Library/Caches")/qrun
      state=$(absolute "${XDG_STATE_HOME:-}" "$HOME/Library/Application Support")/qrun
      ;;
    *) die 1 "this script is for Linux and macOS, not $system. On Windows use scripts/install.ps1, or WSL." ;;
  esac
  data=$(folder_of "${QRUN_DATA_DIR:-}" "$data")
  cache=$(folder_of "${QRUN_CACHE_DIR:-}" "$cache")
  state=$(folder_of "${QRUN_STATE_DIR:-}" "$state")
  bin=$(absolute "${UV_TOOL_BIN_DIR:-${XDG_BIN_HOME:-}}" "$HOME/.local/bin")
  tool=$data/tool
  log=$state/install.log
  uv_tool=$(absolute "${UV_TOOL_DIR:-}" "$xdg_data/uv/tools")/$package
}

absolute() { # an XDG folder that is no absolute path does not count
  case $1 in
    /*) printf '%s\n' "${1%/}" ;;
    *) printf '%s\n' "$2" ;;
  esac
}

folder_of() { # QRUN_*_DIR as qrun reads it, or the default
  case $1 in
    '') printf '%s\n' "$2" ;;
    \~) printf '%s\n' "$HOME" ;;
    \~/*) printf '%s\n' "$HOME/${1#\~/}" ;;
    /*) printf '%s\n' "$1" ;;
    *) printf '%s\n' "$PWD/$1" ;;
  esac
}

# --- qrun itself

install_qrun() {
  spec=$(find_spec)
  check_command
  mkdir -p "$state" "$bin" || die 1 "cannot write to $state and $bin."
  : >"$log" || die 1 "cannot write to $log."
  clear_unlinked
  if command -v uv >/dev/null 2>&1; then
    say "Installing $spec by uv"
    # --force: a command that an interrupted run left; --reinstall-package: a checkout changes without its version.
    export UV_TOOL_BIN_DIR="$bin"
    run uv tool install --force --upgrade --reinstall-package "$package" --python '>=3.11' "$spec" ||
      die 1 "uv could not install $spec: $(telling_line). The whole log: $log"
  else
    install_in_venv
  fi
  qrun=$bin/qrun
  shown=$("$qrun" --version </dev/null 2>>"$log") || die 1 "$qrun does not run: $(telling_line). The whole log: $log"
}

find_spec() {
  if [ -n "$version" ]; then
    printf '%s\n' "$package==$version"
  elif [ -n "${QRUN_SPEC:-}" ]; then
    printf '%s\n' "$QRUN_SPEC"
  else
    find_checkout || printf '%s\n' "$package"
  fi
}

# The checkout this script lies in. In a pipe $0 is the shell, and there is none.
find_checkout() {
  case $0 in
    install.sh | */install.sh) ;;
    *) return 1 ;;
  esac
  root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." 2>/dev/null && pwd) || return 1
  grep -q "^name = \"$package\"\$" "$root/pyproject.toml" 2>/dev/null || return 1
  printf '%s\n' "$root"
}

# A command of that name that we did not put there is somebody else's (another package on PyPI has one).
check_command() {
  [ -e "$bin/qrun" ] || [ -L "$bin/qrun" ] || return 0
  is_ours "$bin/qrun" ||
    die 1 "$bin/qrun is there already and not from this installer: remove it, or name another folder by XDG_BIN_HOME."
}

is_ours() { # a link into the folders where we and uv put qrun
  case $(readlink "$1" 2>/dev/null) in
    "$tool"/* | "$uv_tool"/*) return 0 ;;
    *) return 1 ;;
  esac
}

# An environment counts from the moment the command is linked to it, which is one rename. Until then, and however this
# run ends, the earlier one is in force.
install_in_venv() {
  python=$(find_python) || die 1 "$no_python"
  say "Installing $spec into an environment of its own, by $python"
  unlinked=$tool/venv-$(date +%s)-$$
  mkdir -p "$tool" || die 1 "cannot write to $tool."
  run_as_group "$python" -I -m venv "$unlinked" ||
    give_up "$python cannot make an environment: $(telling_line). The whole log: $log"
  run_as_group "$unlinked/bin/python" -I -m pip --no-input --disable-pip-version-check install "$spec" ||
    give_up "pip could not install $spec: $(telling_line). The whole log: $log"
  "$unlinked/bin/qrun" --version </dev/null >>"$log" 2>&1 ||
    give_up "the installed qrun does not run: $(telling_line). The whole log: $log"
  printf '%s\n' "$bin/qrun" >"$unlinked/command"
  ln -s "$unlinked/bin/qrun" "$bin/.qrun-$$"
  mv -f "$bin/.qrun-$$" "$bin/qrun"
  unlinked=""
  remove_other_links
}

no_python="no Python 3.11 or newer with venv was found: install one (Debian, Ubuntu: apt install python3 python3-venv; \
macOS: brew install python), or uv (https://docs.astral.sh/uv), or name one by QRUN_PYTHON."

find_python() {
  if [ -n "${QRUN_PYTHON:-}" ]; then
    will_do "$QRUN_PYTHON" || return 1
    printf '%s\n' "$QRUN_PYTHON"
    return
  fi
  for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
    if will_do "$candidate"; then # a version manager's shim may be there and not run
      printf '%s\n' "$candidate"
      return
    fi
  done
  return 1
}

will_do() {
  "$1" -I -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' </dev/null >/dev/null 2>&1
}

# Environments that no command is linked to: what was broken off, and what was replaced by the run before this one (a
# qrun may still be running in the one that this run replaces). One that another run is making has a living process.
clear_unlinked() {
  for old in "$tool"/venv-*; do
    [ -d "$old" ] || continue
    is_linked "$old" && continue
    kill -0 "${old##*-}" 2>/dev/null && continue
    rm -rf "$old" || say "could not remove $old"
  done
  rm -f "$bin"/.qrun-[0-9]*
}

is_linked() {
  [ -f "$1/command" ] && [ "$(readlink "$(cat "$1/command")")" = "$1/bin/qrun" ]
}

# XDG_BIN_HOME may have been another in an earlier run.
remove_other_links() {
  for old in "$tool"/venv-*/command; do
    [ -f "$old" ] || continue
    link=$(cat "$old")
    if [ "$link" != "$bin/qrun" ] && is_ours "$link"; then rm -f "$link"; fi
  done
}

# --- the machine and its engine, by qrun

show_hardware() {
  say "$shown is installed. This machine:"
  run_aloud "$qrun" hardware || die "$?" "qrun hardware failed (see above)."
}

install_engine() {
  run_aloud "$qrun" engines install llamacpp --yes ${build:+"$build"} ${allow_cpu:+"$allow_cpu"}
}

tell_what_to_type() {
  say ''
  if [ "$engine" = no ]; then
    say "Ready but for an engine: qrun engines install llamacpp"
  elif [ "$engine_code" -ne 0 ]; then
    say "qrun is in place, an engine is not (see the error). Then: qrun engines install llamacpp"
  else
    say "Ready. Try: qrun serve Llama-3-8B-Instruct     (also: qrun --help, qrun doctor)"
  fi
  case ":$PATH:" in
    *":$bin:"*)
      first=$(command -v qrun || :)
      [ "$first" = "$bin/qrun" ] || say "Another qrun comes first on PATH: $first. This one is $bin/qrun"
      ;;
    *) say "$bin is not on PATH. $(path_line)" ;;
  esac
}

path_line() {
  case ${SHELL:-} in
    */fish) say "Type once: fish_add_path \"$bin\"" ;;
    */zsh) say "Add to ~/.zshrc: export PATH=\"$bin:\$PATH\"" ;;
    */bash) say "Add to ~/.bashrc: export PATH=\"$bin:\$PATH\"" ;;
    *) say "Add to ~/.profile: export PATH=\"$bin:\$PATH\"" ;;
  esac
}

# --- removing it

uninstall() {
  removed=
  if is_ours "$bin/qrun"; then remove "$bin/qrun"; fi
  for old in "$tool"/venv-*/command; do
    [ -f "$old" ] || continue
    link=$(cat "$old")
    if is_ours "$link"; then remove "$link"; fi
  done
  if [ -d "$uv_tool" ]; then
    # uv forgets it too; where there is no uv any more, or it fails, the folder is all there is.
    uv tool uninstall "$package" </dev/null >/dev/null 2>&1 || :
    remove "$uv_tool"
  fi
  remove_folder "${QRUN_DATA_DIR:+named}" "$data" engines pins stored tool
  remove_folder "${QRUN_CACHE_DIR:+named}" "$cache" engine-loads hub wheels
  remove_folder "${QRUN_STATE_DIR:+named}" "$state" bandwidth.json crash.log engines install.log learned logs
  if [ -n "$removed" ]; then say "qrun is removed."; else say "qrun is not installed here: nothing was removed."; fi
  tell_of_models
}

remove() {
  removed=yes
  rm -rf "$1" || die 1 "could not remove $1."
}

# The platform's folder bears qrun's name and is ours whole; one that a QRUN_*_DIR names may hold what is not ours.
remove_folder() { # 'named' or '', the folder, what qrun keeps in it
  kind=$1 folder=$2
  shift 2
  [ -d "$folder" ] || return 0
  if [ -z "$kind" ] && [ ! -L "$folder" ]; then
    remove "$folder"
    return
  fi
  for name in "$@"; do
    if [ -e "$folder/$name" ]; then remove "$folder/$name"; fi
  done
  rmdir "$folder" 2>/dev/null || :
}

# The Hub's cache by huggingface_hub's own rules. Other tools share it, so it is the user's to remove.
tell_of_models() {
  hub=${HF_HUB_CACHE:-${HUGGINGFACE_HUB_CACHE:-${HF_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/huggingface}/hub}}
  set -- "$hub"/models--*
  [ -d "$1" ] || return 0
  size=$(du -skc -- "$@" 2>/dev/null | awk 'END { printf "%.1f GiB", $1 / 1048576 }')
  say "The models in $hub stay ($#, $size in all): other tools share them. To remove every one: rm -rf $(quote "$hub")/models--*"
}

quote() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }

# --- children

# In the background, so that a signal is answered at once and not when the child ends; nothing reads the script's stdin.
run() {
  "$@" </dev/null >>"$log" 2>&1 &
  await
}

# venv and pip start others, which would go on filling what we remove: all in a group, which is ended together.
run_as_group() {
  grouped=yes
  run "$python" -I -c 'import os, sys; os.setpgid(0, 0); os.execvp(sys.argv[1], sys.argv[1:])' "$@"
}

run_aloud() {
  "$@" </dev/null &
  await
}

await() {
  child=$!
  code=0
  wait "$child" || code=$?
  child="" grouped=""
  return "$code"
}

stop() {
  trap '' INT TERM HUP
  if [ -n "$child" ]; then
    if [ -z "$grouped" ] || ! kill -s TERM -- "-$child" 2>/dev/null; then kill "$child" 2>/dev/null || :; fi
    wait "$child" 2>/dev/null || :
    tries=0
    while [ -n "$grouped" ] && kill -s 0 -- "-$child" 2>/dev/null && [ "$tries" -lt 50 ]; do
      sleep 0.1 2>/dev/null || sleep 1
      tries=$((tries + 1))
    done
  fi
  [ -z "$unlinked" ] || rm -rf "$unlinked" || :
  exit "$1"
}

give_up() {
  rm -rf "$unlinked"
  die 1 "$@"
}

# pip says why in the first line of its error; uv in the first and in the last of its causes.
telling_line() {
  line=$(grep -m 1 -E '^(ERROR|error|Error)|No space left|×' "$log" | sed 's/^ERROR: //; s/^error: //; s/\.$//') || :
  cause=$(sed -n 's/^ *cause: //p' "$log" | tail -n 1)
  [ -n "$line" ] || line=$(tail -n 1 "$log")
  printf '%s\n' "$line${cause:+ ($cause)}"
}

main "$@"
