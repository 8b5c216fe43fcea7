"""Extraction on a Ray cluster of two nodes, one of which is killed half-way."""

import pickle
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mmaudio.data import ray_engine
from mmaudio.data.encoding import Encoders, Unit
from mmaudio.data.extraction import ExtractConfig, extract
from mmaudio.data.manifest import ManifestRow
from mmaudio.data.parts import Parts
from mmaudio.data.preparation import Preparation
from mmaudio.data.store import open_store
from mmaudio.variants import VARIANTS

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'mmaudio[ray]'")

CPU = torch.device("cpu")
RATE = 8000
CLIPS = 16
HANG = 170  # seconds after which the cluster is shut down, so that a hang becomes a failure
QUICK_HEARTBEATS = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 2,
}


@pytest.fixture
def cluster(monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    small = {"num_cpus": 1, "object_store_memory": 80 << 20}
    head = small | {"include_dashboard": False, "_system_config": QUICK_HEARTBEATS}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    nodes.victim = nodes.add_node(**small)
    ray.init(address=nodes.address, log_to_driver=False, logging_level="error")
    watchdog = threading.Timer(HANG, nodes.shutdown)
    watchdog.start()
    yield nodes
    watchdog.cancel()
    ray.shutdown()
    nodes.shutdown()


def test_every_clip_is_there_once_although_a_node_dies(cluster, tmp_path, monkeypatch):
    lines = ["id\tpath\tcaption\n"]
    for i in range(CLIPS):
        t = np.arange(round(8.2 * RATE)) / RATE
        soundfile.write(tmp_path / f"{i}.wav", 0.3 * np.sin(2 * np.pi * 50 * (i + 2) * t), RATE)
        lines.append(f"s{i}\t{i}.wav\ttone {i % 3}\n")
    (tmp_path / "clips.tsv").write_text("".join(lines) + "lost\tlost.wav\ttone\n")
    settings = {"manifest": str(tmp_path / "clips.tsv"), "variant": "tiny_16k", "device": "cpu"}
    parts = tmp_path / "ray.parts"
    at_kill = []

    def done():
        return len(list(parts.glob("*/*.safetensors")))

    def works(node):
        actors = ray._private.state.actors().values()
        return any(actor["State"] == "ALIVE" and actor["Address"]["NodeID"] == node.node_id for actor in actors)

    def kill_half_way():
        while done() < 3 or (done() < CLIPS // 2 and not works(cluster.victim)):
            time.sleep(0.02)
        at_kill.append(done())
        cluster.remove_node(cluster.victim, allow_graceful=False)

    monkeypatch.setattr(ray_engine, "UNITS_PER_TASK", 1)
    killer = threading.Thread(target=kill_half_way, daemon=True)
    killer.start()
    assert extract(ExtractConfig(output=str(tmp_path / "ray"), engine="ray", **settings)) == 1  # one file is missing
    killer.join()
    assert 3 <= at_kill[0] < CLIPS
    assert sum(node["Alive"] for node in ray.nodes()) == 1
    assert not parts.exists()
    assert "no such file" in Path(f"{tmp_path / 'ray'}.failed.tsv").read_text()

    store = open_store(tmp_path / "ray")
    assert store.ids == [f"s{i}_0" for i in range(CLIPS)]
    preparation, encoders = Preparation(VARIANTS["tiny_16k"], video=False), Encoders(VARIANTS["tiny_16k"], CPU)
    for i in (0, 7, CLIPS - 1):  # each has its own features
        wanted = encoders.features(preparation(ManifestRow(f"s{i}", tmp_path / f"{i}.wav")))
        assert torch.allclose(store.rows([i]).mean.float(), wanted["mean"], atol=0.02)


def test_a_node_that_cannot_work_says_why(tmp_path):
    """Not by raising: Ray would try again and again, and bury the reason."""
    (tmp_path / "tiny_16k_clip.safetensors").write_text("damaged")
    parts = Parts(tmp_path / "parts", {})
    encode = ray_engine.Encode(Preparation(VARIANTS["tiny_16k"], video=False), parts, "cpu", str(tmp_path))
    unit = Unit(captions=("a bell",))
    answer = encode({"prepared": [pickle.dumps((unit, None))]})
    assert answer["name"] == [unit.name]
    assert "WeightError" in answer["trouble"][0]
    assert "tiny_16k_clip.safetensors" in answer["trouble"][0]
    unit = Unit(ManifestRow("a", tmp_path / "a.wav"))
    answer = encode({"prepared": [pickle.dumps((unit, "is silent"))]})  # the clip's own failure is none of the node
    assert answer == {"name": [unit.name], "reason": ["is silent"], "trouble": [""]}
    assert parts.reason(unit.name) == "is silent"
