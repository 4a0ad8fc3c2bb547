"""Laws of the choice, over any files of any format on any machine, as properties."""

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from candidates import LLAMACPP, card, cpu_only
from case_models import ggufs, others
from qrun.engine_models import simulated_states
from qrun.fit import Task, smallest_need, usable_gpus
from qrun.hardware import Device
from qrun.model import Candidate, ModelFile
from qrun.pin import pin_of
from qrun.profiles import all_profiles
from qrun.request import Request
from qrun.resolution import REASONS
from qrun.resolution_json import to_json
from qrun.resolve import resolve
from qrun.source import FoundModel
from qrun.units import GIB

BASES = (
    "meta-llama/Llama-3.1-8B-Instruct",
    "Qwen/Qwen2.5-14B-Instruct",
    "Qwen/Qwen3-30B-A3B-Instruct-2507",
    "google/gemma-3-27b-it",
    "openai/gpt-oss-20b",
)
UNSIZED = Candidate("o/unsized", None, "o", "o/m", (ModelFile("m-Q4_K_M.gguf", GIB),), "gguf", "Q4_K_M")


def distinct(one):
    return one.repo_id, one.files[0].path, one.quant


@st.composite
def models(draw):
    """Some files of one model, of every format; now and then one of unknown dimensions, some of them stored."""
    base = draw(st.sampled_from(BASES))
    files = st.sampled_from([*ggufs(base), *others(base)])
    chosen = draw(st.lists(files, min_size=1, max_size=14, unique_by=distinct))
    stored = draw(st.sets(st.integers(0, len(chosen) - 1)))
    marked = [replace(one, stored=index in stored) for index, one in enumerate(chosen)]
    return FoundModel(base, (*marked, *([UNSIZED] if draw(st.booleans()) else [])))


CARDS = st.lists(
    st.builds(
        lambda gib, bandwidth, kind: Device(f"a card of {gib:.1f}", kind, int(gib * GIB), None, bandwidth),
        st.floats(2, 96),
        st.one_of(st.none(), st.floats(1e11, 4e12)),
        st.sampled_from(["cuda", "rocm"]),
    ),
    max_size=3,
)
MACHINES = st.one_of(
    st.sampled_from(all_profiles()),
    st.builds(lambda ram, gpus: replace(cpu_only(ram), gpus=tuple(gpus)), st.floats(2.5, 128), CARDS),
    st.builds(lambda gib: card(gib, kind="metal", ram_gib=gib), st.floats(8, 192)),
)
OPTIONS = st.fixed_dictionaries(
    {
        "goal": st.sampled_from(["quality", "balanced", "speed"]),
        "placement": st.sampled_from(["auto", "gpu", "any"]),
    },
    optional={
        "n_ctx": st.one_of(st.integers(256, 32768), st.just("auto")),
        "n_parallel": st.integers(1, 4),
        "kv_type": st.sampled_from(["f16", "q8_0", "q4_0", "auto"]),
        "max_kld": st.floats(0.001, 1),
        "min_tps": st.floats(1, 100),
    },
)


def decide(found, hardware, pin=None, **options):
    engines = simulated_states(hardware)
    return resolve(Request(found.base_model, **options), found, hardware, engines, pin=pin)


def holds(choice, hardware):
    """Whether each device and host RAM keep their budgets."""
    shared = choice.placement.mode in ("cpu", "unified")
    in_ram = choice.memory.host_bytes + (choice.memory.total_bytes if shared else 0)
    return in_ram <= hardware.ram_budget_bytes and all(
        one.total_bytes <= one.budget_bytes for one in choice.memory.devices
    )


def stand_once(resolution, found):
    """Whether the chosen and the rejected are all candidates, each once and each loser with a reason."""
    chosen = [resolution.chosen.candidate] if resolution.chosen else []
    named = [*chosen, *(one.candidate for one in resolution.rejected)]
    reasons = {one.reason for one in resolution.rejected}
    return sorted(map(distinct, named)) == sorted(map(distinct, found.candidates)) and reasons <= set(REASONS)


@settings(deadline=None)
@given(found=models(), hardware=MACHINES, options=OPTIONS)
def test_the_chosen_fits_and_passes_what_was_asked(found, hardware, options):
    """Budgets, floors, KV type and slots: of the chosen, budgets of every alternative too."""
    resolution = decide(found, hardware, **options)
    chosen = resolution.chosen

    assert (chosen is None) == (resolution.error is not None)
    for choice in (*([chosen] if chosen else []), *resolution.alternatives):
        assert holds(choice, hardware)
        assert choice.quality.kld <= options.get("max_kld", 100)
        assert choice.speed.decode_tps >= options.get("min_tps", 0)
        assert choice.n_parallel == options.get("n_parallel", choice.n_parallel) <= 4
        assert choice.kv_cache_type in {options.get("kv_type", "auto"), "f16", "q8_0", "q4_0"}
        if options["placement"] == "gpu":
            assert choice.placement.mode in ("gpu", "unified")


@settings(deadline=None)
@given(found=models(), hardware=MACHINES, options=OPTIONS)
def test_every_candidate_stands_once_with_one_reason(found, hardware, options):
    """Chosen, or rejected for exactly one of the closed set of reasons; none is lost."""
    assert stand_once(decide(found, hardware, **options), found)


@settings(deadline=None)
@given(found=models(), hardware=MACHINES, options=OPTIONS, seed=st.integers())
def test_the_order_of_candidates_does_not_matter(found, hardware, options, seed):
    """Shuffled, the same decision to the last field."""
    shuffled = list(found.candidates)
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - no secret

    one, other = (decide(each, hardware, **options) for each in (found, replace(found, candidates=tuple(shuffled))))

    assert to_json(one) == to_json(other)


def of_one_mode(kind, gib):
    """A machine of which only the memory of one kind is asked for."""
    if kind == "cpu":
        return cpu_only(gib)
    return card(gib, kind=kind, ram_gib=gib if kind == "metal" else 512)


@settings(deadline=None)
@given(
    found=models(),
    kind=st.sampled_from(["cuda", "rocm", "metal", "cpu"]),
    sizes=st.tuples(st.floats(2.5, 160), st.floats(2.5, 160)),
    n_ctx=st.sampled_from([2048, 8192, 32768]),
)
def test_more_memory_never_raises_the_loss(found, kind, sizes, n_ctx):
    """Nothing stored, one placement mode, goal quality: nothing worse is taken."""
    found = replace(found, candidates=tuple(replace(one, stored=False) for one in found.candidates))
    placement = "auto" if kind == "cpu" else "gpu"
    less, more = (
        decide(found, of_one_mode(kind, gib), goal="quality", placement=placement, n_ctx=n_ctx).chosen
        for gib in sorted(sizes)
    )

    assert less is None or more.quality.kld <= less.quality.kld


@settings(deadline=None)
@given(
    one=st.sampled_from([one for base in BASES for one in (*ggufs(base), *others(base))]),
    hardware=MACHINES,
    contexts=st.tuples(st.integers(1, 200_000), st.integers(1, 200_000)),
    n_parallel=st.integers(1, 4),
    kv_type=st.sampled_from(["f16", "q8_0"]),
)
def test_a_longer_context_never_needs_less(one, hardware, contexts, n_parallel, kv_type):
    """Whole on whatever the machine has."""
    gpus = usable_gpus(hardware)
    modes = Task(one.shape, one.weights, hardware, gpus, 1).open_modes("auto")
    short, long = (
        smallest_need(Task(one.shape, one.weights, hardware, gpus, n_ctx, n_parallel), modes[0], (kv_type,))
        for n_ctx in sorted(contexts)
    )

    assert short.total_bytes + short.host_bytes <= long.total_bytes + long.host_bytes


@settings(deadline=None)
@given(found=models(), hardware=MACHINES, options=OPTIONS, free=st.floats(0.2, 1), seed=st.integers())
def test_a_pinned_choice_keeps_these_laws(found, hardware, options, free, seed):
    """On the day after, with less memory free: it fits, every candidate stands once, and no order matters."""
    before = decide(found, hardware, **options).chosen
    if before is None:
        return
    pin = pin_of(before, decided_at="2026-01-01T00:00:00+00:00")
    gpus = tuple(replace(gpu, free_bytes=int(gpu.memory_bytes * free)) for gpu in hardware.gpus)
    today = replace(hardware, gpus=gpus, ram_free_bytes=int(hardware.ram_bytes * free))
    shuffled = list(found.candidates)
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - no secret

    kept = decide(found, today, pin, **options)
    again = decide(replace(found, candidates=tuple(shuffled)), today, pin, **options)

    assert stand_once(kept, found)
    assert to_json(kept) == to_json(again)
    if kept.chosen is not None:
        assert holds(kept.chosen, today)
        same = distinct(kept.chosen.candidate) == distinct(before.candidate)
        assert same or kept.chosen.candidate.stored


@settings(deadline=None)
@given(found=models(), hardware=MACHINES, options=OPTIONS)
def test_every_loser_that_fits_has_all_its_figures(found, hardware, options):
    """Memory, a range of speed, a loss, a way in; what is too large has its need and what would hold it."""
    for one in decide(found, hardware, **options).rejected:
        if one.reason in ("worse_quality", "slower", "same_as_chosen"):
            assert one.needed_bytes > 0
            assert 0 < one.speed.low <= one.speed.decode_tps <= one.speed.high
            assert one.quality.kld > 0
            assert one.would_fit
        if one.reason == "too_large":
            assert one.needed_bytes > 0
            assert one.would_fit
            assert one.quality.kld > 0


def test_the_laws_are_tried_on_llamacpp_alone_too():
    """The engines above are all that run; with one installed the same files give a choice of its format."""
    found = FoundModel(BASES[0], (*ggufs(BASES[0]), *others(BASES[0])))

    chosen = resolve(Request("m"), found, card(24), (LLAMACPP,)).chosen

    assert chosen.candidate.format == "gguf"
