"""Errors carry fields, word themselves in one line, and keep the exit codes of the contract."""

import inspect

import pytest

from qrun import errors, hub_errors

CONTRACT = {  # DESIGN section 2, docs/exit-codes.md
    "Failure": 1,
    "PortInUse": 1,
    "UsageError": 2,
    "ContextTooLong": 2,
    "ModelNotFound": 3,
    "AmbiguousModel": 3,
    "QuantNotFound": 3,
    "FormatNotFound": 3,
    "NotAModel": 3,
    "NothingFits": 4,
    "FloorMissed": 4,
    "PinnedTooLarge": 4,
    "EngineMissing": 7,
    "EngineFailed": 7,
    "EngineCannot": 7,
    "FileDamaged": 8,
    "UnsafeFile": 8,
    "ChecksumWrong": 8,
    "HubUnreachable": 5,
    "RangesIgnored": 5,
    "AccessDenied": 6,
    "TokenRefused": 6,
    "DiskFull": 9,
}


def all_errors():
    """Every public error class of the module but the base."""
    classes = [getattr(module, name) for module in (errors, hub_errors) for name in module.__all__]
    return [cls for cls in classes if inspect.isclass(cls) and cls is not errors.QrunError]


@pytest.mark.parametrize("cls", all_errors(), ids=lambda cls: cls.__name__)
def test_every_error_class_has_the_exit_code_of_the_contract(cls):
    """A new error class must take its place in the contract's list."""
    assert cls.exit_code == CONTRACT[cls.__name__]


@pytest.mark.parametrize("cls", all_errors(), ids=lambda cls: cls.__name__)
def test_the_tree_in_the_docstring_names_every_class(cls):
    """The drawing at the top of the module is kept current."""
    assert cls.__name__ in (errors.__doc__ or "")


def test_errors_stay_hashable_and_raisable():
    """An exception must be hashable, or traceback and exception groups break."""
    error = errors.ModelNotFound("a", "b")

    assert hash(error)
    with pytest.raises(errors.QrunError, match="no model named 'a'"):
        raise error


def test_nothing_fits_says_need_budget_and_what_would():
    """Exit 4 names the need, the budget and the way out."""
    line = str(errors.NothingFits("m", 8 * 2**30, 4 * 2**30, "It fits at --ctx 2048."))

    assert "8.0 GiB of 4.0 GiB" in line
    assert line.endswith("It fits at --ctx 2048.")


def test_a_wrong_checksum_names_its_kind_and_both_sums():
    """Exit 8 names sha256, what was promised and what came."""
    line = str(hub_errors.ChecksumWrong("m.gguf", "", expected="a" * 64, found="b" * 64))

    assert f"its sha256 is {'b' * 64}, not {'a' * 64}" in line


def test_access_denied_names_the_page_and_how_to_log_in():
    """Exit 6 gives the page's full address, and the login only to whom it can help."""
    page = "https://huggingface.co/meta-llama/Meta-Llama-3-8B"

    anonymous = str(hub_errors.AccessDenied("meta-llama/Meta-Llama-3-8B", page, logged_in=False))
    known = str(hub_errors.AccessDenied("meta-llama/Meta-Llama-3-8B", page, logged_in=True))

    assert page in anonymous
    assert "hf auth login" in anonymous
    assert "your token has no access yet" in known


def test_a_full_disk_says_need_and_room():
    """Exit 9 names both figures where they are known."""
    line = str(hub_errors.DiskFull("/cache", needed_bytes=8 * 2**30, free_bytes=2**30))

    assert "has 1.0 GiB free and needs 8.0 GiB" in line
