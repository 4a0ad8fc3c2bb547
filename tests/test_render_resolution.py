"""The table for people: the chosen first, one row for each candidate, nothing wrapped or coloured in a pipe."""

import os
import pty
import subprocess
import sys
from pathlib import Path

from candidates import LLAMA_3_8B, LLAMACPP, card, cpu_only, model
from qrun.render_resolution import show_resolution
from qrun.request import Request
from qrun.resolve import resolve

ON_A_TERMINAL = """
import sys
sys.path.insert(0, {tests!r})
from test_render_resolution import decided
from candidates import card
from qrun.render_resolution import show_resolution
show_resolution(decided(card(24)), as_json=False)
"""


def decided(hardware, **options):
    return resolve(Request("llama3", **options), model(LLAMA_3_8B, publisher="bartowski"), hardware, [LLAMACPP])


def shown(capsys, hardware, **options):
    """The lines printed for a decision."""
    show_resolution(decided(hardware, **options), as_json=False)
    return capsys.readouterr().out.splitlines()


def test_the_chosen_stands_first_and_is_marked(capsys):
    """The row after the titles, with a mark, its need of the budget and its KLD."""
    lines = shown(capsys, card(8), goal="quality", n_parallel=1)
    titles = next(index for index, line in enumerate(lines) if line.lstrip().startswith("Quant"))

    assert lines[titles + 1].split()[:2] == [">", "Q6_K"]
    assert "6.4 GiB of 6.5 GiB" in lines[titles + 1]
    assert "0.0075" in lines[titles + 1]
    assert lines[titles + 1].endswith("chosen")


def test_every_candidate_has_one_row_with_its_reason(capsys):
    """As many rows as candidates; the losers say why."""
    lines = shown(capsys, card(8))
    repo = "bartowski/Meta-Llama-3-8B-Instruct-GGUF"
    rows = [line for line in lines if repo in line]

    assert len(rows) == len(model(LLAMA_3_8B, publisher="bartowski").candidates)
    assert any("too large: needs 8.1 GiB of 6.5 GiB" in row and "a card with 9.6 GiB free" in row for row in rows)


def test_in_a_pipe_columns_are_aligned_plain_text(capsys):
    """No escape codes, no trailing blanks, and each column begins where its title does."""
    lines = shown(capsys, card(8))
    titles = next(line for line in lines if line.lstrip().startswith("Quant"))
    rows = [line for line in lines if "bartowski/" in line]

    assert not any("\x1b" in line or line != line.rstrip() for line in lines)
    assert {row.index("bartowski/") for row in rows} == {titles.index("Repo")}


def test_the_reasons_of_the_choice_follow(capsys):
    """Where it lies, how many slots, which engine, and the rule."""
    text = "\n".join(shown(capsys, cpu_only(32), goal="quality"))

    assert "Chosen    Q8_0: on the CPU, 1 slot of 8192 tokens, KV cache f16" in text
    assert "Engine    llamacpp" in text
    assert "Why       goal quality: " in text


def test_a_refusal_still_shows_what_was_looked_at(capsys):
    """The table of losers; the error itself is the door's to print."""
    lines = shown(capsys, cpu_only(3))

    assert not any(line.startswith(">") for line in lines)
    assert sum("too large" in line for line in lines) == len(model(LLAMA_3_8B, publisher="bartowski").candidates)


def test_finetune_shows_the_line_that_loads_it(capsys):
    """To be copied."""
    assert any("Load it with: AutoModelForCausalLM" in line for line in shown(capsys, card(24), goal="finetune"))


def test_on_a_terminal_the_table_keeps_to_its_width():
    """A narrow terminal gets a table in colour that is no wider than it is."""
    main, terminal = pty.openpty()
    script = ON_A_TERMINAL.format(tests=str(Path(__file__).parent))
    environ = {**os.environ, "COLUMNS": "100", "TERM": "xterm-256color"}
    with subprocess.Popen([sys.executable, "-c", script], stdout=terminal, env=environ) as child:
        os.close(terminal)
        printed = _drained(main)
        assert child.wait(timeout=60) == 0
    table = [line for line in printed.splitlines() if "GiB of" in line]

    assert "\x1b[1;32m" in printed
    assert table
    assert all(len(_without_colour(line)) <= 100 for line in table)


def _drained(descriptor):
    """All that is written to a terminal until its other end is closed."""
    parts = []
    while True:
        try:
            part = os.read(descriptor, 65536)
        except OSError:  # Linux: the last writer left
            part = b""
        if not part:
            os.close(descriptor)
            return b"".join(parts).decode()
        parts.append(part)


def _without_colour(line):
    import re

    return re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip()
