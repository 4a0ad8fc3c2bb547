"""The shared options: they arrive as one Request, and what cannot be meant is refused in one line."""

import click
import pytest
from click.testing import CliRunner

from qrun.cli.options import request_options, yes_option
from qrun.errors import UsageError
from qrun.request import Request


def read(*args):
    """What a command with the shared options is called with."""
    called = {}

    @click.command()
    @request_options
    @yes_option
    def command(**kwargs):
        called.update(kwargs)

    CliRunner().invoke(command, args, catch_exceptions=False, standalone_mode=False)
    return called


def test_without_options_the_request_is_the_default():
    """Only MODEL is needed."""
    switches = {"refresh": False, "offline": False, "assume_yes": False}

    assert read("llama3") == {"request": Request("llama3"), "models_dir": None} | switches


def test_every_option_finds_its_field():
    """One value for the resolver, the folder and the consent beside it."""
    line = (
        "m --goal speed --ctx 4096 --parallel 2 --placement gpu --quant q4_k_m --format gguf --engine llamacpp "
        "--engines llamacpp,mlx --kv-type q8_0 --gpus 0,2 --min-tps 5 --max-kld .1 --allow-cpu-engine "
        "--models-dir d --refresh --offline --yes"
    )

    called = read(*line.split())

    assert called["request"] == Request(
        "m",
        goal="speed",
        n_ctx=4096,
        n_parallel=2,
        placement="gpu",
        quant="Q4_K_M",
        format="gguf",
        engine="llamacpp",
        engines=("llamacpp", "mlx"),
        kv_type="q8_0",
        gpus=(0, 2),
        min_tps=5,
        max_kld=0.1,
        allow_cpu_engine=True,
    )
    assert str(called["models_dir"]) == "d"
    assert all(called[name] is True for name in ("assume_yes", "refresh", "offline"))


@pytest.mark.parametrize(
    ("args", "field", "value"),
    [
        (["--ctx", "auto"], "n_ctx", "auto"),
        (["--gpus", "none"], "gpus", ()),
        (["--gpus", "1"], "gpus", (1,)),
        (["--quant", "ud-q4_k_xl"], "quant", "UD-Q4_K_XL"),
    ],
)
def test_words_mean_what_the_help_says(args, field, value):
    """Auto and none are values of their own; labels get qrun's one spelling."""
    assert getattr(read("m", *args)["request"], field) == value


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--ctx", "0"], "--ctx must be a number of tokens, 1 or more, or auto, not '0'"),
        (["--ctx", "8k"], "--ctx must be"),
        (["--ctx", "99999999999"], "--ctx must be"),
        (["--parallel", "0"], "--parallel must be 1 or more, not 0"),
        (["--quant", "bogus"], "--quant 'bogus' is no quant"),
        (["--gpus", "a"], "--gpus must be none or numbers"),
        (["--gpus", "1,1"], "--gpus names a GPU twice"),
        (["--engines", ","], "--engines is empty"),
        (["--min-tps", "-1"], "--min-tps must be a number above 0"),
        (["--min-tps", "nan"], "--min-tps must be a number above 0"),
        (["--max-kld", "0"], "--max-kld must be a number above 0"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(args, says):
    """One line, exit 2, with the option's name and what is allowed."""
    with pytest.raises(UsageError) as refused:
        read("m", *args)

    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("option", ["--goal", "--placement", "--format", "--kv-type"])
def test_choices_are_closed(option):
    """A word that is no choice is a usage error that lists the choices."""
    with pytest.raises(click.BadParameter, match="is not one of"):
        read("m", option, "nonsense")
