"""The README's real command against the whole listing: a name, nothing but HF_ENDPOINT set, and a model that answers.

The Hub is the emulator with every repo of the real listing. Real bytes stand behind one of them: what
lmstudio-community has of Llama-3-8B-Instruct is SmolLM2-135M in the demo's quants, so that it can be run here. Its MLX
copy tells SmolLM2's dimensions too, or label and size would be at odds (and the files refused).
"""

import json
import os
import signal
import subprocess
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import scan_cache_dir
from openai import OpenAI

from front import wait_for
from hub_emulator import HubEmulator

pytestmark = pytest.mark.engine

MODEL = "Llama-3-8B-Instruct"
BASE = "meta-llama/Meta-Llama-3-8B-Instruct"
REPO = "lmstudio-community/Meta-Llama-3-8B-Instruct-GGUF"
MLX_COPY = "mlx-community/Meta-Llama-3-8B-Instruct-4bit"
WITHIN_S = 120
# SmolLM2-135M-Instruct's config.json, what describes its dimensions.
SMOLLM2 = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}


@pytest.fixture(scope="module")
def real_hub(demo_models):
    """The listing, with real weights behind one repo of it, and small files redirected as the Hub does today."""
    with HubEmulator(cached_small_files=True) as hub:
        hub.add_listing(tags="old")
        hub.replace_files(REPO, _weights(demo_models))
        mlx = json.dumps(SMOLLM2 | {"quantization": {"bits": 4, "group_size": 64}}).encode()
        hub.replace_files(MLX_COPY, {"config.json": mlx, "model.safetensors": 84_000_000})
        yield hub


def _weights(demo_models: Path) -> dict[str, bytes | Path]:
    """The demo's files under the names of the repo that they stand behind."""
    quants = {path.stem.rpartition(".")[2].rpartition("-")[2]: path for path in demo_models.glob("*/*/*.gguf")}
    return {f"Meta-Llama-3-8B-Instruct-{quant}.gguf": path for quant, path in quants.items()} | {
        "README.md": b"# A quant\n"
    }


@pytest.fixture(scope="module")
def home(engine_config, real_hub, tmp_path_factory):
    """A user's home: the ready engine, nothing else of qrun, an empty Hub cache, and the address of the Hub."""
    home = tmp_path_factory.mktemp("home")
    data_dir = home / "data"
    data_dir.mkdir()
    (data_dir / "engines").symlink_to(engine_config.data_dir / "engines")
    unset = ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "QRUN_MODELS_DIR")
    environ = {name: value for name, value in os.environ.items() if name not in unset}
    folders = {"QRUN_DATA_DIR": data_dir, "QRUN_CACHE_DIR": home / "cache", "QRUN_STATE_DIR": home / "state"}
    return (
        environ
        | {name: str(path) for name, path in folders.items()}
        | {
            "HOME": str(home),
            "HF_HOME": str(home / "hf"),
            "HF_ENDPOINT": real_hub.endpoint,
        }
    )


def qrun(exe: Path, home: dict[str, str], *args: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [exe, *args],
        check=False,
        env=home | more,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
    )


@pytest.fixture(scope="module")
def served(qrun_exe, home, real_hub):
    """What a user saw: the endpoint answered, and how the server ended."""
    with subprocess.Popen(
        [qrun_exe, "serve", MODEL, "--port", "0", "--ctx", "2048"],
        env=home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        endpoint = server.stdout.readline().strip()
        assert endpoint, server.stderr.read()
        with OpenAI(base_url=endpoint, api_key="none", timeout=WITHIN_S) as client:
            models = client.models.list()
            answer = client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "Say hello."}], max_tokens=8
            )
        server.send_signal(signal.SIGINT)
        _, stderr = server.communicate(timeout=WITHIN_S)
        return models, answer, stderr, server.returncode


def test_a_name_becomes_a_served_model(served):
    """One command, and any OpenAI client is answered; the served model is the base's name."""
    models, answer, stderr, code = served

    assert models.data[0].id == "Meta-Llama-3-8B-Instruct"
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens > 0
    assert f"from {REPO}" in stderr
    assert code == 130


def test_what_was_served_is_in_the_hub_s_cache_for_others(served, home):
    """huggingface_hub finds the file, its checksum is the blob's name, and its scan has nothing to warn of."""
    assert served
    cache = Path(home["HF_HOME"]) / "hub"

    scan = scan_cache_dir(cache)

    assert scan.warnings == []
    repo = next(repo for repo in scan.repos if repo.repo_id == REPO)
    file = next(file for revision in repo.revisions for file in revision.files if file.file_name.endswith(".gguf"))
    assert huggingface_hub.hf_hub_download(REPO, file.file_name, cache_dir=cache, local_files_only=True)


def test_the_same_request_asks_the_hub_for_nothing(served, qrun_exe, home, real_hub):
    """The decision is pinned and the file stored: resolve and pull of the same request make no request."""
    assert served
    real_hub.requests.clear()

    resolved = qrun(qrun_exe, home, "resolve", MODEL, "--ctx", "2048", "--json")
    pulled = qrun(qrun_exe, home, "pull", MODEL, "--ctx", "2048")

    assert resolved.returncode == 0, resolved.stderr
    assert pulled.returncode == 0, pulled.stderr
    assert real_hub.requests == []
    chosen = json.loads(resolved.stdout)["chosen"]
    assert (chosen["repo_id"], len(chosen["revision"])) == (REPO, 40)
    assert chosen["files"][0]["sha256"] in str(Path(pulled.stdout.strip()).readlink())


@pytest.mark.parametrize("way", [("--offline",), ()], ids=["option", "variable"])
def test_offline_the_stored_model_answers(served, qrun_exe, home, real_hub, way):
    """Another spelling, no pin for it, and no Hub: what is stored is found and run."""
    assert served
    real_hub.requests.clear()
    variable = {} if way else {"HF_HUB_OFFLINE": "1"}

    answered = qrun(qrun_exe, home, "run", "llama 3 8b instruct", "Say hello.", "--ctx", "1024", *way, **variable)

    assert answered.returncode == 0, answered.stderr
    assert answered.stdout.strip()
    assert real_hub.requests == []


def test_offline_what_is_not_stored_is_exit_5(served, qrun_exe, home):
    """One line that says why, and what to do."""
    assert served

    refused = qrun(qrun_exe, home, "resolve", "Qwen3-8B", "--offline")

    assert refused.returncode == 5
    assert refused.stderr.count("\n") == 1
    assert "offline was asked for" in refused.stderr


def test_while_the_model_is_fetched_the_server_says_that_it_is_loading(qrun_exe, home, real_hub, tmp_path):
    """The port answers at once with 503 on /health; Ctrl-C in the middle ends it, and what came is kept."""
    real_hub.fault("slow", path="^/cdn/.*Q8_0", bytes_per_s=2_000_000)
    fresh = home | {"HF_HOME": str(tmp_path / "hf"), "QRUN_DATA_DIR": str(tmp_path / "data")}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "engines").symlink_to(Path(home["QRUN_DATA_DIR"]) / "engines")
    with subprocess.Popen(
        [qrun_exe, "serve", MODEL, "--port", "0", "--ctx", "2048", "--quant", "Q8_0"],
        env=fresh,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        line = server.stderr.readline()
        endpoint = line.split(" on ")[1].split("/v1")[0]
        status = _health(endpoint)
        blobs = tmp_path / "hf" / "hub" / f"models--{REPO.replace('/', '--')}" / "blobs"
        wait_for(lambda: any(file.stat().st_size for file in blobs.glob("*")), WITHIN_S)
        server.send_signal(signal.SIGINT)
        out, _ = server.communicate(timeout=20)
    real_hub.clear_faults()

    assert status == 503
    assert server.returncode == 130
    assert out == ""
    left = [file.name for file in blobs.glob("*")]
    assert left
    assert all(name.endswith(".incomplete") for name in left)  # it was in the middle, and what came is kept


def _health(endpoint: str) -> int:
    import http.client

    connection = http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=30)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_bare_base_id_that_is_gated_is_no_obstacle(served, qrun_exe, home, real_hub):
    """The base is closed to us; its quants are open and are taken without a token."""
    assert served

    resolved = qrun(qrun_exe, home, "resolve", BASE, "--ctx", "2048", "--json")

    document = json.loads(resolved.stdout)
    assert document["error"] is None
    assert document["base_model"]["repo_id"] == BASE
    assert document["chosen"]["repo_id"] == REPO
