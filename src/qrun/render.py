"""What commands share in printing: a table for people, JSON for programs.

On a terminal a table is set in colour to the terminal's width; in a pipe its columns stand aligned, nothing is wrapped,
cut or coloured, and each row is one line.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import click

__all__ = ["Column", "print_json", "print_table"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. `keeps`: on a terminal its cells are never wrapped."""

    title: str
    right: bool = False
    keeps: bool = True


def print_json(document: object) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, marked: int | None = None) -> None:
    """Print `rows` under the columns' titles; the row `marked` stands out on a terminal."""
    if sys.stdout.isatty():
        _print_rich(columns, rows, marked)
        return
    for line in _plain_lines(columns, rows):
        click.echo(line)


def _plain_lines(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[str]:
    table = [[column.title for column in columns], *rows]
    widths = [max(len(row[index]) for row in table) for index in range(len(columns))]
    return ["  ".join(_cells(columns, widths, row)).rstrip() for row in table]


def _cells(columns: Sequence[Column], widths: Sequence[int], row: Sequence[str]) -> list[str]:
    return [
        cell.rjust(width) if column.right else cell.ljust(width)
        for column, width, cell in zip(columns, widths, row, strict=True)
    ]


def _print_rich(columns: Sequence[Column], rows: Sequence[Sequence[str]], marked: int | None) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for column in columns:
        table.add_column(column.title, justify="right" if column.right else "left", no_wrap=column.keeps)
    for index, row in enumerate(rows):
        table.add_row(*row, style="bold green" if index == marked else None)
    # No markup and no emoji: names come from files and may hold brackets and colons.
    Console(markup=False, emoji=False, highlight=False).print(table)
