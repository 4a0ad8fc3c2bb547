"""The group of commands and its lazy table.

`qrun --help` must not import what the commands need: their one-line helps stand here (a test holds them to the
commands' own), the modules are imported when a command is called.
"""

from importlib import import_module
from typing import ClassVar

import click

import qrun

__all__ = ["COMMANDS", "LazyGroup", "cli"]

COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("qrun.cli.serve:serve", "Serve MODEL on an OpenAI-compatible endpoint on this machine."),
    "run": ("qrun.cli.run:run", "Ask MODEL one PROMPT, or chat with it in the terminal."),
    "resolve": ("qrun.cli.resolve:resolve", "Show which files MODEL resolves to on this machine, and why."),
    "search": (
        "qrun.cli.search:search",
        "List the base models that WORDS find, each with the quant that fits here.",
    ),
    "show": ("qrun.cli.show:show", "Show what MODEL is, and which quants there are of it."),
    "pull": ("qrun.cli.pull:pull", "Fetch what each MODEL resolves to on this machine, and print its first file."),
    "list": ("qrun.cli.list:list_", "List the models that are stored on this disk."),
    "outdated": (
        "qrun.cli.outdated:outdated",
        "Name stored repos that moved on the Hub, and choices that would differ today.",
    ),
    "rm": (
        "qrun.cli.rm:rm",
        "Delete the stored repos of NAME, a repo or a base model, with all that is unfinished in them.",
    ),
    "verify": ("qrun.cli.verify:verify_", "Check the stored files of NAME, or all, against their checksums."),
    "prune": (
        "qrun.cli.prune:prune",
        "Delete what qrun left behind: given-up downloads, wrong bytes, superseded revisions.",
    ),
    "hardware": ("qrun.cli.hardware:hardware", "Show what this machine has, and what a model may use of it."),
    "engines": ("qrun.cli.engines:engines", "List the runners and their engines, or install one."),
    "doctor": ("qrun.cli.doctor:doctor", "Check this installation and say what to mend."),
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and helps without importing them."""

    table: ClassVar[dict[str, tuple[str, str]]] = COMMANDS

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order people need them."""
        return [*self.table, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command itself; this imports it."""
        if cmd_name not in self.table:
            return super().get_command(ctx, cmd_name)
        module, attribute = self.table[cmd_name][0].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - signature of click
        """The list of commands, from the table alone."""
        rows = [(name, help_text) for name, (_, help_text) in self.table.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(qrun.__version__, prog_name="qrun", message="%(prog)s %(version)s")
def cli() -> None:
    """Name a model; qrun picks the quantization that fits this machine and serves it."""
