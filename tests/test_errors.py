"""Errors carry fields, word themselves in one line, and keep the exit codes of the contract."""

import inspect

import pytest

from qrun import errors

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
    "EngineMissing": 7,
    "EngineFailed": 7,
    "EngineCannot": 7,
    "FileDamaged": 8,
    "UnsafeFile": 8,
}


def all_errors():
    """Every public error class of the module but the base."""
    classes = [getattr(errors, name) for name in errors.__all__]
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
