"""The door: runs the command, turns what it raises into one line and an exit code.

Exit codes are a contract (docs/exit-codes.md). Nothing below this module prints an error or calls `sys.exit`.
"""

import os
import signal
import sys
import traceback
from types import FrameType

import click

from qrun.cli.group import cli
from qrun.errors import QrunError

__all__ = ["Terminated", "main"]

_INTERRUPTED = 130
_TERMINATED = 143


class Terminated(BaseException):
    """SIGTERM arrived. No Exception, so that nothing on the way out mistakes it for a failure of its own."""


def main() -> None:
    """Run `qrun` with this process's arguments and exit."""
    _terminate_like_interrupt()
    sys.exit(run_cli(sys.argv[1:]))


def run_cli(argv: list[str]) -> int:  # noqa: PLR0911 - one way out for each way to end
    """Run one command line and return its exit code; errors are printed here and nowhere else."""
    try:
        code = cli.main(args=argv, prog_name="qrun", standalone_mode=False)
        sys.stdout.flush()
    except QrunError as error:
        return _refuse(str(error), error.exit_code)
    except click.UsageError as error:
        return _refuse(_usage_line(error), 2)
    except click.ClickException as error:
        return _refuse(error.format_message(), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _INTERRUPTED
    except Terminated:
        return _TERMINATED
    except BrokenPipeError:
        return _reader_left()
    except OSError as error:
        return _refuse(_os_error_line(error), 1)
    except Exception as error:  # noqa: BLE001 - the last door: users get a line, the traceback goes to a file
        return _refuse(_crash_line(error), 1)
    return code if isinstance(code, int) else 0


def _refuse(message: str, exit_code: int) -> int:
    # One line, whatever the message holds: programs read the last line of stderr.
    click.echo(f"qrun: error: {' '.join(message.split())}", err=True)
    return exit_code


def _usage_line(error: click.UsageError) -> str:
    path = error.ctx.command_path if error.ctx else "qrun"
    return f"{error.format_message()} See {path} --help."


def _os_error_line(error: OSError) -> str:
    what = error.strerror or str(error)
    return f"{error.filename}: {what}" if error.filename else what


def _crash_line(error: Exception) -> str:
    from qrun.config import read_config

    path = read_config().state_dir / "crash.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(traceback.format_exc())
    except OSError:
        return f"a bug in qrun: {type(error).__name__}: {error}"
    return f"a bug in qrun: {type(error).__name__}: {error}. The traceback is in {path}; please report it."


def _reader_left() -> int:
    # The reader of a pipe (`| head`) is gone: nothing is wrong, and Python must not complain at exit.
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - lives as long as the process: the exit flush goes there
    return 0


def _terminate_like_interrupt() -> None:
    def on_term(_signal: int, _frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, on_term)
