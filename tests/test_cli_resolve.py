"""`qrun resolve` as it is called: table or JSON on stdout, one line on stderr, the exit codes of the contract."""

import json
import subprocess

import pytest

from qrun.cli.main import run_cli

MODEL = "SmolLM2-135M-Instruct"
MIB = 2**20


@pytest.fixture
def machine(tmp_path):
    """Writes a hardware file of a machine without a GPU that has that many MiB beside the 2 GiB reserve."""

    def write(usable_mib):
        path = tmp_path / f"{usable_mib}.toml"
        path.write_text(
            f'name = "test"\nos = "linux"\narch = "x86_64"\ncpu_cores = 4\nram_bytes = {2 * 2**30 + usable_mib * MIB}\n'
        )
        return str(path)

    return write


@pytest.fixture
def resolve(demo_models, capsys):
    """Runs `qrun resolve` in this process; gives exit code, stdout and stderr."""

    def run(*args, models_dir=demo_models):
        code = run_cli(["resolve", *args, "--models-dir", str(models_dir)])
        return code, *capsys.readouterr()

    return run


def test_the_table_names_every_quant_and_the_chosen(resolve, machine):
    """Exit 0, nothing on stderr."""
    code, out, err = resolve(MODEL, "--hardware", machine(8000))

    assert (code, err) == (0, "")
    assert [line.split()[1] for line in out.splitlines() if line.startswith(">")] == ["Q8_0"]
    assert all(quant in out for quant in ("Q4_0", "Q4_1", "Q5_0", "Q5_1"))


def test_tight_memory_gives_another_quant(resolve, machine):
    """The demo's point: the same model, less memory, a smaller file, and the larger one's reason."""
    chosen = {}
    for usable_mib in (8000, 250, 215, 205):
        document = json.loads(resolve(MODEL, "--hardware", machine(usable_mib), "--json")[1])
        chosen[usable_mib] = document["chosen"]["quant"]
        memory = document["chosen"]["memory"]
        assert memory["total_bytes"] + memory["host_bytes"] <= usable_mib * MIB

    assert chosen[8000] == "Q8_0"
    assert len(set(chosen.values())) >= 3


def test_json_is_one_document_and_nothing_else(resolve, machine):
    """Stdout parses whole."""
    code, out, err = resolve(MODEL, "--json", "--hardware", machine(8000), "--goal", "quality")
    document = json.loads(out)

    assert (code, err) == (0, "")
    assert document["request"]["goal"] == "quality"
    assert document["base_model"]["repo_id"].endswith(MODEL)
    assert document["hardware"]["devices"][-1]["kind"] == "cpu"
    assert len(document["rejected"]) == 4


@pytest.mark.parametrize(
    ("args", "exit_code", "name", "says"),
    [
        (["SmolLM2-135M-Instrukt"], 3, "model_not_found", MODEL),
        ([MODEL, "--quant", "Q2_K"], 3, "quant_not_found", "Q4_1, Q5_0"),
        ([f"{MODEL}:q6_k"], 3, "quant_not_found", "'Q6_K'"),
        ([MODEL, "--format", "exl2"], 3, "format_not_found", "gguf"),
        ([MODEL, "--ctx", "9000"], 2, "usage", "context of 8192 tokens"),
        ([MODEL, "--engine", "nope"], 2, "usage", "llamacpp"),
        ([MODEL, "--placement", "gpu"], 4, "nothing_fits", "--placement auto"),
        ([f"{MODEL}:Q8_0", "--quant", "Q4_0"], 2, "usage", "Name one"),
    ],
)
def test_a_refusal_is_one_line_its_exit_code_and_still_a_document(resolve, machine, args, exit_code, name, says):  # noqa: PLR0917  # fixtures and a row
    """With --json the document says the same as the line on stderr."""
    code, out, err = resolve(*args, "--json", "--hardware", machine(8000))
    error = json.loads(out)["error"]

    assert (code, error["exit"], error["name"]) == (exit_code, exit_code, name)
    assert err.splitlines() == [f"qrun: error: {error['message']}"]
    assert says in err


def test_nothing_fits_is_exit_4_with_what_would(resolve, machine):
    """A context that fits, and the memory that would do; the context it names does fit."""
    code, out, err = resolve(MODEL, "--hardware", machine(150))
    n_ctx = err.partition("--ctx ")[2].split()[0]

    assert code == 4
    assert out.count("too large") == 5
    assert "of RAM free" in err
    assert resolve(MODEL, "--ctx", n_ctx, "--hardware", machine(150))[0] == 0


def test_a_quant_behind_the_colon_is_the_quant(resolve, machine):
    """`MODEL:QUANT` and --quant are one."""
    for args in ([f"{MODEL}:q5_0"], [MODEL, "--quant", "q5_0"], [f"{MODEL}:Q5_0", "--quant", "q5_0"]):
        document = json.loads(resolve(*args, "--json", "--hardware", machine(8000))[1])

        assert (document["chosen"]["quant"], document["request"]["quant"]) == ("Q5_0", "Q5_0")


def test_a_local_file_is_a_model(resolve, machine, smollm2_q4_1):
    """Its path is the model, and the file's path is absolute in the answer."""
    document = json.loads(resolve(str(smollm2_q4_1), "--json", "--hardware", machine(8000))[1])

    assert document["chosen"]["repo_id"] is None
    assert document["chosen"]["files"][0]["path"] == str(smollm2_q4_1)


def test_a_bad_hardware_file_is_a_usage_error(resolve, tmp_path):
    """Exit 2; nothing is decided for a machine that was not understood."""
    (tmp_path / "bad.toml").write_text('name = "x"\n')

    code, out, err = resolve(MODEL, "--hardware", str(tmp_path / "bad.toml"))

    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1


def test_without_an_engine_the_error_says_how_to_get_one(resolve, monkeypatch):
    """No engine on this machine, no terminal to ask on: exit 7 with the command that installs it."""
    monkeypatch.setenv("PATH", "")

    code, _, err = resolve(MODEL)

    assert code == 7
    assert "qrun engines install llamacpp" in err


def test_with_yes_an_engine_that_can_be_installed_competes(resolve, monkeypatch):
    """The decision is made, and says that the engine is not there yet."""
    monkeypatch.setenv("PATH", "")

    code, out, _ = resolve(MODEL, "--yes", "--json", "--gpus", "none")

    assert code == 0
    assert json.loads(out)["chosen"]["engine_installed"] is False


def test_in_a_pipe_each_candidate_is_one_line(qrun_exe, demo_models, machine):
    """As a program reads it: no colours, no wrapping at 80 columns."""
    command = [qrun_exe, "resolve", MODEL, "--models-dir", demo_models, "--hardware", machine(250)]
    piped = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    rows = [line for line in piped.stdout.splitlines() if "-GGUF" in line]

    assert len(rows) == 5
    assert "\x1b" not in piped.stdout
    assert max(map(len, rows)) > 100
