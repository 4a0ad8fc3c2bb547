"""What MODEL says: names, repos, addresses and paths, with the quant or revision behind them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qrun.errors import UsageError
from qrun.names import is_path, nearest, parse_model

IDS = ["HuggingFaceTB/SmolLM2-135M-Instruct", "HuggingFaceTB/SmolLM2-360M-Instruct", "meta-llama/Llama-3.1-8B-Instruct"]


@pytest.mark.parametrize(
    ("text", "name", "quant", "revision"),
    [
        ("Llama-3-8B-Instruct", "Llama-3-8B-Instruct", None, None),
        ("qwen3 30b a3b", "qwen3 30b a3b", None, None),
        ("  llama3:8b ", "llama3:8b", None, None),
        ("llama3:8b-instruct-q4_K_M", "llama3:8b-instruct", "Q4_K_M", None),
        ("llama3:8b:Q8_0", "llama3:8b", "Q8_0", None),
        ("org/name:q4_k_m", "org/name", "Q4_K_M", None),
        ("org/name:UD-Q4_K_XL", "org/name", "UD-Q4_K_XL", None),
        ("org/name:4.25bpw", "org/name", "4.25bpw", None),
        ("org/name@4f1e2d", "org/name", None, "4f1e2d"),
        ("org/name@refs/pr/3", "org/name", None, "refs/pr/3"),
        ("org/name@main:Q8_0", "org/name", "Q8_0", "main"),
        ("org/name:Q8_0@main", "org/name", "Q8_0", "main"),
        ("hf.co/org/name:Q4_K_M", "org/name", "Q4_K_M", None),
        ("huggingface.co/org/name", "org/name", None, None),
        ("https://huggingface.co/org/name/tree/4_25", "org/name", None, "4_25"),
        ("https://huggingface.co/org/name/", "org/name", None, None),
        ("hf://org/name", "org/name", None, None),
        ("./folder:Q4_K_M", "./folder", "Q4_K_M", None),
        ("/models/x@y/m.gguf", "/models/x@y/m.gguf", None, None),
        (r"C:\models\m.gguf", r"C:\models\m.gguf", None, None),
        ("C:/models/repo:Q8_0", "C:/models/repo", "Q8_0", None),
        ("~/m.gguf", "~/m.gguf", None, None),
    ],
)
def test_a_model_text_comes_apart(text, name, quant, revision):
    """What follows the last colon is a quant if it parses as one, else part of the name; a drive letter is neither."""
    ref = parse_model(text)

    assert (ref.name, ref.quant, ref.revision) == (name, quant, revision)
    assert ref.text == text.strip()


def test_an_address_of_a_file_names_repo_revision_and_file():
    """What the browser shows can be pasted, escapes and download marks and all."""
    ref = parse_model("https://huggingface.co/org/name/resolve/main/Q8_0/a%20model-Q8_0.gguf?download=true")

    assert (ref.name, ref.revision, ref.file) == ("org/name", "main", "Q8_0/a model-Q8_0.gguf")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "https://huggingface.co/",
        "https://huggingface.co/models",
        "https://example.org/a/b",
        "hf://x",
        "https://[",
    ],
)
def test_a_text_that_names_no_model_is_refused(text):
    """Exit 2, with the form that is meant."""
    with pytest.raises(UsageError):
        parse_model(text)


@pytest.mark.parametrize(
    "text",
    ["/a", "./a", "../a", "~/a", ".", r"C:\a", "D:/a", r".\a", "m.gguf", "m.GGUF", "/a/b:Q8_0", r"\\host\share\m"],
)
def test_what_can_only_be_a_path_is_one(text):
    """Absolute, relative to here or home, on a drive, or a GGUF file."""
    assert is_path(text)


@pytest.mark.parametrize("text", ["llama3:8b", "org/name", "org/name:Q4_K_M", "qwen 2.5", "a.b"])
def test_a_name_is_no_path(text):
    """Names and ids are looked up."""
    assert not is_path(text)


@pytest.mark.parametrize(
    "text", ["SmolLM2-153M-Instruct", "smolm2 135m instuct", "smollm2 135m", "x/SmolLM2-135M-Instruct"]
)
def test_the_nearest_name_of_a_misspelling_is_what_was_meant(text):
    """The likeliest stands first."""
    assert nearest(text, IDS)[0] == IDS[0]


def test_nothing_near_gives_no_names():
    """A model of another kind is not offered one at random."""
    assert nearest("gpt-4o", IDS) == ()


def test_nearest_is_stable_and_bounded():
    """The order of what is there does not change the answer."""
    many = [f"org/model-{n}b" for n in range(9)]

    assert nearest("model-10b", many, most=3) == nearest("model-10b", reversed(many), most=3)
    assert len(nearest("model-10b", many, most=3)) == 3


@given(st.text(max_size=60) | st.from_regex(r"(hf\.co/|https://huggingface\.co/)?[\w.@:/-]{1,40}", fullmatch=True))
def test_any_text_is_a_model_or_refused(text):
    """No text breaks the parser, and what it gives is not empty."""
    try:
        ref = parse_model(text)
    except UsageError:
        return
    assert ref.name
    assert ref.text == text.strip()
