"""The bandwidth of RAM: read by processes of its own, remembered by machine, measured again where it was busy."""

import json
from dataclasses import replace

import pytest

import qrun.bandwidth
from candidates import cpu_only
from qrun.bandwidth import BandwidthStore, measure_read_bandwidth
from qrun.hardware import Cpu
from qrun.units import MIB

MACHINE = cpu_only(16)


@pytest.fixture
def reader(monkeypatch):
    """Stands in for the measurement: gives the figures it is told, and counts what it was asked."""
    told = {"figures": [40e9], "asked": [], "busy": False}

    def measure(n_processes):
        told["asked"].append(n_processes)
        return told["figures"].pop(0) if told["figures"] else None

    monkeypatch.setattr(qrun.bandwidth, "measure_read_bandwidth", measure)
    monkeypatch.setattr(qrun.bandwidth, "_is_busy", lambda _: told["busy"])
    return told


def test_processes_read_memory_together():
    """The measurement starts real processes and finds a rate that memory can have."""
    found = measure_read_bandwidth(2, block_bytes=8 * MIB, scan_s=0.1)

    assert found is not None
    assert 1e8 < found < 1e13


def test_an_interpreter_that_does_not_start_gives_no_figure(monkeypatch, tmp_path):
    """What cannot be measured is unknown, and no error."""
    monkeypatch.setattr(qrun.bandwidth.sys, "executable", str(tmp_path / "absent"))

    assert measure_read_bandwidth(2) is None


def test_a_process_that_dies_gives_no_figure(monkeypatch):
    """One that ends without an answer (no memory) makes the measurement unknown; none is left behind."""
    monkeypatch.setattr(qrun.bandwidth, "_SCANNER", "raise SystemExit(1)")

    assert measure_read_bandwidth(2) is None


def test_what_was_measured_is_remembered(reader, tmp_path):
    """The second asking reads a file; the figure says that it was measured."""
    first = BandwidthStore(tmp_path).measured(MACHINE)
    second = BandwidthStore(tmp_path).measured(MACHINE)

    assert (first.ram_bandwidth_bytes_per_s, first.ram_bandwidth_source) == (40e9, "measured")
    assert second == first == BandwidthStore(tmp_path).known(MACHINE)
    assert len(reader["asked"]) == 1


def test_nothing_is_measured_to_know_what_is_remembered(reader, tmp_path):
    """A decision that is stored never waits for a measurement."""
    assert BandwidthStore(tmp_path).known(MACHINE) == MACHINE
    assert reader["asked"] == []


def test_another_machine_is_measured_anew(reader, tmp_path):
    """Another processor, or a quota of its time, is another machine; both are remembered."""
    reader["figures"] = [40e9, 20e9]
    store = BandwidthStore(tmp_path)
    quota = replace(MACHINE, cpu=replace(MACHINE.cpu, quota_cores=2.0))

    figures = [store.measured(one).ram_bandwidth_bytes_per_s for one in (MACHINE, quota, MACHINE)]

    assert figures == [40e9, 20e9, 40e9]
    assert reader["asked"] == [8, 2]


def test_a_figure_of_a_busy_machine_is_replaced_by_a_larger_one(reader, tmp_path):
    """Others' work takes bandwidth away: such a figure is used, and measured again; the most that was seen stays."""
    reader["figures"], reader["busy"] = [20e9, 15e9], True
    store = BandwidthStore(tmp_path)
    busy = [store.measured(MACHINE).ram_bandwidth_bytes_per_s for _ in range(2)]
    reader["figures"], reader["busy"] = [40e9], False

    quiet = [store.measured(MACHINE).ram_bandwidth_bytes_per_s for _ in range(2)]

    assert busy == [20e9, 20e9]
    assert quiet == [40e9, 40e9]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": 1}', "\x00"])
def test_a_damaged_file_is_as_if_it_were_not_there(reader, tmp_path, text):
    """Whatever lies in the file, the answer is a fresh measurement, which then stands in it."""
    (tmp_path / "bandwidth.json").write_text(text)

    found = BandwidthStore(tmp_path).measured(MACHINE)

    assert found.ram_bandwidth_bytes_per_s == 40e9
    assert BandwidthStore(tmp_path).known(MACHINE) == found


@pytest.mark.parametrize("value", [None, True, "40e9", -1, 0])
def test_a_figure_that_is_none_is_not_taken(reader, tmp_path, value):
    """A rate is a number above zero."""
    store = BandwidthStore(tmp_path)
    store.measured(MACHINE)
    kept = json.loads((tmp_path / "bandwidth.json").read_text())
    (tmp_path / "bandwidth.json").write_text(json.dumps({key: {"read_bytes_per_s": value} for key in kept}))

    assert store.known(MACHINE) == MACHINE


def test_a_machine_that_cannot_be_measured_stays_unknown(reader, tmp_path):
    """No figure is better than a wrong one, and nothing is remembered."""
    reader["figures"] = []

    assert BandwidthStore(tmp_path).measured(MACHINE) == MACHINE
    assert not (tmp_path / "bandwidth.json").exists()


def test_a_folder_that_cannot_be_written_costs_only_the_memory_of_it(reader, tmp_path):
    """The figure is used all the same."""
    (tmp_path / "file").write_text("")

    assert BandwidthStore(tmp_path / "file").measured(MACHINE).ram_bandwidth_bytes_per_s == 40e9


def test_no_more_memory_is_scanned_than_a_quarter_of_what_is_free(reader, tmp_path):
    """On a machine with little free memory fewer processes read."""
    scarce = replace(MACHINE, cpu=Cpu("a CPU", "x86_64", 64, 64, 64), ram_free_bytes=1024 * MIB)

    BandwidthStore(tmp_path).measured(scarce)

    assert reader["asked"] == [4]
