"""`qrun doctor`: the facts of this machine, judged, with an exit code that programs can use."""

import json
from pathlib import Path

import pytest

from qrun.checks import Check
from qrun.cli.main import run_cli
from qrun.config import read_config
from qrun.doctor import examine, run_steps
from qrun.render_doctor import doctor_json, show_checks

NAMES = ["python", "engine llamacpp", "cpu", "libgomp", "memory", "gpu", "disk data", "disk cache"]


@pytest.fixture
def environ(tmp_path) -> dict[str, str]:
    """A qrun that has nothing yet, asks no Hub, and may use this machine."""
    return {
        "QRUN_DATA_DIR": str(tmp_path / "data"),
        "QRUN_CACHE_DIR": str(tmp_path / "cache"),
        "QRUN_STATE_DIR": str(tmp_path / "state"),
        "HF_HUB_OFFLINE": "1",
        "PATH": "",
    }


def by_name(checks) -> dict[str, Check]:
    """The checks by their names."""
    return {check.name: check for check in checks}


def test_a_check_that_breaks_is_a_failure_and_the_others_go_on():
    """The doctor survives the patient: what was raised is the finding."""

    def breaks() -> list[Check]:
        raise PermissionError(13, "Permission denied", "/sys/x")

    found = run_steps([("first", breaks), ("second", lambda: [Check("second", "ok", "fine")])])

    assert [(check.name, check.status) for check in found] == [("first", "fail"), ("second", "ok")]
    assert "PermissionError" in found[0].detail
    assert "/sys/x" in found[0].detail
    assert found[0].remedy


def test_a_new_installation_is_told_to_install_an_engine(environ):
    """Real, on an empty data folder: the missing engine is a failure, with the command that mends it."""
    found = examine(read_config(environ))

    names = [check.name for check in found]
    engine = by_name(found)["engine llamacpp"]
    assert [name for name in names if name in NAMES] == NAMES
    assert engine.status == "fail"
    assert "qrun engines install llamacpp" in engine.remedy


@pytest.mark.engine
def test_an_installed_engine_is_found(engine_config):
    """Real, with the ready engine in place: it is told by build and version."""
    engine = by_name(examine(engine_config))["engine llamacpp"]

    assert engine.status == "ok"
    assert engine.detail.startswith("ready ")


def test_folders_are_looked_at_where_they_will_be(environ, tmp_path):
    """A data folder that does not exist yet is judged by what is there of its path."""
    (tmp_path / "file").write_text("")
    environ["QRUN_DATA_DIR"] = str(tmp_path / "not" / "yet")
    environ["QRUN_CACHE_DIR"] = str(tmp_path / "file" / "below")

    found = by_name(examine(read_config(environ)))

    assert str(tmp_path / "not" / "yet") in found["disk data"].detail
    assert found["disk data"].status != "fail"
    assert found["disk cache"].status == "fail"
    assert "cannot be written" in found["disk cache"].detail


def test_repos_are_counted_through_links(environ, tmp_path):
    """`org/name` folders, links to them too; loose files and hidden folders are none."""
    models, elsewhere = tmp_path / "models", tmp_path / "elsewhere"
    for folder in (models / "org" / "a", models / "org" / "b", models / ".cache" / "x", elsewhere / "c"):
        folder.mkdir(parents=True)
    (models / "org" / "readme.txt").write_text("")
    (models / "linked").symlink_to(elsewhere)
    environ["QRUN_MODELS_DIR"] = str(models)

    assert by_name(examine(read_config(environ)))["models folder"].detail == f"3 repos in {models}"


@pytest.mark.parametrize(("folder", "status"), [("absent", "fail"), (".", "warn")])
def test_an_absent_or_empty_models_folder_is_told_of(environ, tmp_path, folder, status):
    """Set but missing cannot work; empty is only not filled yet."""
    environ["QRUN_MODELS_DIR"] = str(tmp_path / folder)

    assert by_name(examine(read_config(environ)))["models folder"].status == status


def test_a_hub_that_is_not_there_is_a_warning(environ):
    """Real request to a closed port: off line is no failure."""
    del environ["HF_HUB_OFFLINE"]
    environ["HF_ENDPOINT"] = "http://127.0.0.1:9"

    hub = by_name(examine(read_config(environ)))["hub"]

    assert hub.status == "warn"
    assert "http://127.0.0.1:9 cannot be reached" in hub.detail


@pytest.fixture
def installation(environ, monkeypatch) -> Path:
    """The process's own environment is that of `environ`; the data folder is returned."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return Path(environ["QRUN_DATA_DIR"])


def test_the_command_exits_1_where_something_failed(installation, capsys):
    """Scripts can rely on the exit code; stderr stays empty."""
    code = run_cli(["doctor"])

    captured = capsys.readouterr()
    assert code == 1
    assert captured.err == ""
    assert captured.out.splitlines()[-1].startswith("1 failed")


@pytest.mark.engine
def test_the_command_exits_0_where_nothing_failed(engine_config, monkeypatch, capsys):
    """Real, with an engine: warnings do not count."""
    for name, value in engine_config.environ.items():
        monkeypatch.setenv(name, value)

    code = run_cli(["doctor", "--json"])

    document = json.loads(capsys.readouterr().out)
    assert [check for check in document["checks"] if check["status"] == "fail"] == []
    assert document["ok"]
    assert code == 0


def test_the_command_prints_json_for_programs(installation, capsys):
    """`--json` holds every check, and `ok` says what the exit code says."""
    code = run_cli(["doctor", "--json"])

    document = json.loads(capsys.readouterr().out)
    assert code == 1
    assert (document["schema"], document["ok"]) == (1, False)
    assert all(check.keys() == {"name", "status", "detail", "remedy"} for check in document["checks"])


def test_asking_changes_nothing_on_the_disk(installation):
    """The doctor looks; it makes no folder."""
    run_cli(["doctor"])

    assert not installation.exists()


def test_the_document_is_the_contract():
    """Keys, and null where there is no remedy."""
    document = doctor_json([Check("a", "ok", "fine"), Check("b", "warn", "so so", "Do this.")])

    assert document == {
        "schema": 1,
        "ok": True,
        "checks": [
            {"name": "a", "status": "ok", "detail": "fine", "remedy": None},
            {"name": "b", "status": "warn", "detail": "so so", "remedy": "Do this."},
        ],
    }


def test_people_read_the_remedy_below_its_finding(capsys):
    """A line for the finding, and one for what to do, only where there is something to do."""
    show_checks([Check("a", "ok", "fine"), Check("long name", "fail", "broken", "Mend it.")], as_json=False)

    assert capsys.readouterr().out.splitlines() == [
        "ok    a          fine",
        "fail  long name  broken",
        "                 Mend it.",
        "1 failed, 0 warnings.",
    ]


def test_people_read_that_all_is_well(capsys):
    """No findings, no counting."""
    show_checks([Check("a", "ok", "fine")], as_json=False)

    assert capsys.readouterr().out.splitlines()[-1] == "All is well."
