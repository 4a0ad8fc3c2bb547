"""Bad input gets one clear line and the right exit code, from the real command on real files (issue 3, point 9)."""

import os
import shutil
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

MODEL = "SmolLM2-135M-Instruct"
Q4_1 = Path("qrun-demo", f"{MODEL}-GGUF", f"{MODEL}.Q4_1.gguf")

TINY_MACHINE = """
name = "tiny"
os = "linux"
arch = "x86_64"
cpu_cores = 2
ram_bytes = 2200000000
"""


@dataclass(frozen=True)
class Ended:
    """A finished command."""

    code: int
    out: str
    err: str
    line: str = field(init=False)

    def __post_init__(self) -> None:
        """The error line is the last of stderr."""
        object.__setattr__(self, "line", self.err.splitlines()[-1] if self.err else "")


@pytest.fixture
def qrun(qrun_exe, engine_config, demo_models):
    """The installed command with the ready engine and the demo's models; keyword arguments change its environment."""

    def run(*args: str, models: Path | None = demo_models, **environ: str) -> Ended:
        env = dict(engine_config.environ)
        if models is not None:
            env["QRUN_MODELS_DIR"] = str(models)
        done = subprocess.run(
            [qrun_exe, *args],
            env=env | environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


def assert_refused(ended: Ended, code: int, *words: str, shows_losers: bool = False) -> None:
    """One line of error, the exit code, and the words that help; on stdout at most the losers and their reasons."""
    assert bool(ended.out) == shows_losers
    assert ended.code == code, ended.err
    assert ended.line.startswith("qrun: error: ")
    assert "Traceback" not in ended.err
    assert len(ended.err.splitlines()) <= 2  # DESIGN section 2: at most one other line goes with it
    for word in words:
        assert word in ended.line


@pytest.mark.parametrize(("command", "prompt"), [("serve", []), ("run", ["Hello!"]), ("resolve", [])])
def test_a_name_that_does_not_exist_gets_the_nearest_ones(qrun, command, prompt):
    """Exit 3, and the name that was meant stands in the line."""
    assert_refused(qrun(command, "SmolLM2-153M-Instruct", *prompt), 3, "SmolLM2-153M-Instruct", MODEL)


def test_a_folder_that_is_no_model_is_named(qrun, tmp_path):
    """Exit 3: an existing folder without a model in it."""
    (tmp_path / "notes.txt").write_text("hello")

    assert_refused(qrun("serve", str(tmp_path)), 3, str(tmp_path))


def test_a_path_that_does_not_exist_is_not_found(qrun, tmp_path):
    """Exit 3: a path is looked for as a path."""
    assert_refused(qrun("serve", str(tmp_path / "no.gguf")), 3, "no.gguf")


def test_a_file_that_is_no_gguf_is_damaged(qrun, tmp_path):
    """Exit 8: a .gguf that holds something else."""
    file = tmp_path / "page.gguf"
    file.write_text("<html>Not found</html>" * 100)

    assert_refused(qrun("serve", str(file)), 8, str(file))


def test_a_truncated_file_names_both_sizes(qrun, smollm2_q4_1, tmp_path):
    """Exit 8: the bytes that are there and those that the header demands."""
    file = tmp_path / "SmolLM2.Q4_1.gguf"
    with smollm2_q4_1.open("rb") as whole:
        file.write_bytes(whole.read(50_000_000))

    assert_refused(qrun("serve", str(file)), 8, "50,000,000", "98,362,432")


def test_a_damaged_header_is_one_line(qrun, smollm2_q4_1, tmp_path):
    """Exit 8: a header whose counts are nonsense."""
    file = tmp_path / "SmolLM2.Q4_1.gguf"
    shutil.copyfile(smollm2_q4_1, file)
    with file.open("r+b") as damaged:
        damaged.seek(8)
        damaged.write(b"\xff" * 8)

    assert_refused(qrun("resolve", str(file)), 8, str(file))


def test_one_damaged_file_does_not_hide_the_good_ones(qrun, smollm2_q4_1, tmp_path):
    """A folder with a truncated quant beside a whole one still serves; the truncated one is rejected as incomplete."""
    repo = tmp_path / "org" / f"{MODEL}-GGUF"
    repo.mkdir(parents=True)
    (repo / f"{MODEL}.Q4_1.gguf").symlink_to(smollm2_q4_1)
    (repo / f"{MODEL}.Q8_0.gguf").write_bytes(smollm2_q4_1.read_bytes()[:1_000_000])

    ended = qrun("resolve", MODEL, "--json", models=tmp_path)

    assert ended.code == 0
    assert '"incomplete"' in ended.out


def test_a_port_in_use_is_named(qrun):
    """Exit 1, with the port and what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])

        assert_refused(qrun("serve", MODEL, "--port", port), 1, port, "--port")


def test_no_engine_installed_gives_the_command_that_installs_it(qrun, tmp_path):
    """Exit 7, and the line can be typed as it stands."""
    environ = {"QRUN_DATA_DIR": str(tmp_path), "PATH": os.defpath}

    assert_refused(qrun("serve", MODEL, **environ), 7, "qrun engines install llamacpp")


def test_a_named_server_that_is_not_there_is_named(qrun, tmp_path):
    """Exit 7: QRUN_LLAMA_SERVER is the user's word; it is not passed over in silence."""
    missing = str(tmp_path / "llama-server")

    assert_refused(qrun("serve", MODEL, QRUN_LLAMA_SERVER=missing), 7, "QRUN_LLAMA_SERVER", missing)


def test_a_context_above_the_model_s_gives_both_numbers(qrun):
    """Exit 2: SmolLM2 was trained for 8,192 tokens."""
    assert_refused(qrun("serve", MODEL, "--ctx", "100000"), 2, "8192", "100000")


def test_a_quant_that_is_not_there_gets_those_that_are(qrun):
    """Exit 3, with every quant of the model."""
    assert_refused(qrun("serve", f"{MODEL}:Q6_K"), 3, "Q6_K", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")


def test_nothing_fits_says_what_would(qrun, tmp_path):
    """Exit 4, with the need, the budget and a way out."""
    hardware = tmp_path / "tiny.toml"
    hardware.write_text(TINY_MACHINE)

    assert_refused(qrun("resolve", MODEL, "--hardware", str(hardware)), 4, "GiB", "would fit", shows_losers=True)


def test_a_bad_hardware_file_is_a_usage_error(qrun, tmp_path):
    """Exit 2, naming the key."""
    hardware = tmp_path / "bad.toml"
    hardware.write_text(TINY_MACHINE.replace("cpu_cores = 2", 'cpu_cores = "two"'))

    assert_refused(qrun("resolve", MODEL, "--hardware", str(hardware)), 2, "cpu_cores")


def test_a_hub_that_does_not_answer_is_said_with_the_ways_round(qrun):
    """Exit 5, with the mirror and what is stored as ways on."""
    ended = qrun("serve", MODEL, models=None, QRUN_HUB_RETRY_S="0.2")

    assert_refused(ended, 5, "cannot be reached", "HF_ENDPOINT", "--offline")


@pytest.mark.parametrize("command", [("serve", MODEL), ("run", MODEL, "Hi"), ("resolve", MODEL), ("pull", MODEL)])
def test_offline_what_is_not_stored_is_said(qrun, command):
    """Exit 5 at once, from every command that takes a MODEL."""
    assert_refused(qrun(*command, "--offline", models=None), 5, "offline was asked for", MODEL)


def test_a_retry_time_that_is_no_number_is_refused(qrun):
    """Exit 2, naming the variable."""
    assert_refused(qrun("resolve", MODEL, QRUN_HUB_RETRY_S="soon"), 2, "QRUN_HUB_RETRY_S")


@pytest.mark.parametrize(
    "options",
    [["--ctx", "many"], ["--ctx", "-1"], ["--ctx", "0"], ["--parallel", "0"], ["--goal", "best"], ["--kv-type", "q5"]],
)
def test_an_option_s_wrong_value_is_one_line(qrun, options):
    """Exit 2, naming the option."""
    assert_refused(qrun("serve", MODEL, *options), 2, options[0])


def test_wide_binding_without_a_key_is_refused(qrun):
    """Exit 2: beyond loopback only with a key or an explicit --insecure."""
    assert_refused(qrun("serve", MODEL, "--host", "0.0.0.0"), 2, "--api-key", "--insecure")


@pytest.mark.engine
def test_an_argument_the_engine_does_not_know_is_its_own_reason(qrun, native_config, native_server):
    """Exit 7: what follows `--` reaches the engine unchanged, and its refusal reaches the user."""
    ended = qrun("serve", MODEL, "--port", "0", "--", "--no-such-flag", QRUN_DATA_DIR=str(native_config.data_dir))

    assert_refused(ended, 7, "--no-such-flag")


@pytest.mark.engine
def test_what_the_ready_engine_cannot_do_is_refused_by_name(qrun):
    """Exit 7: the ready engine takes no raw arguments; the line names them and the way to an engine that does."""
    assert_refused(qrun("serve", MODEL, "--port", "0", "--", "--top-k", "5"), 7, "--top-k", "--build")
