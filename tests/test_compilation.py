"""torch.compile in generation: what is compiled gives what the plain way gives, and where it cannot be that goes on."""

import functools

import pytest
import torch

import mmaudio
from mmaudio import flow
from mmaudio.compilation import Compiled, compile_part
from mmaudio.model.network import MMAudio, MMAudioConfig
from mmaudio.sequence import SPEC_16K

NETWORK = MMAudioConfig(
    latent_dim=4, hidden_dim=16, num_heads=2, joint_blocks=1, fused_blocks=1, clip_dim=8, sync_dim=8, text_dim=8
)
SPEC = SPEC_16K.with_duration(1.0)


@torch.inference_mode()
def test_the_velocity_is_one_graph(monkeypatch, capsys):
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=count, fullgraph=True))
    torch.manual_seed(0)
    network = MMAudio(NETWORK).eval().requires_grad_(False)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    branches = network.encode_conditions(None, None, None, SPEC).shared(), network.null_conditions(1, SPEC).shared()

    def solved():
        return flow.euler(flow.guided(network, *branches, 4.5), torch.ones(1, SPEC.latent_len, 4), 2)

    wanted = solved()
    compile_part(network)
    torch.testing.assert_close(solved(), wanted, rtol=0, atol=1e-5)
    assert len(graphs) == 1
    assert capsys.readouterr().err.count("flow network: compiled for this length in") == 1


def test_what_cannot_be_compiled_runs_as_it_is(monkeypatch, capsys):
    attempts = []

    def broken(function, **options):
        def compiled(*args):
            attempts.append(args)
            raise RuntimeError("no C++ compiler\nfound")

        return compiled

    monkeypatch.setattr(torch, "compile", broken)
    double = Compiled("doubler", lambda x: 2 * x, graphs=False)
    for _ in range(2):
        assert torch.equal(double(torch.ones(3)), torch.full((3,), 2.0))
    assert len(attempts) == 1
    said = capsys.readouterr().err.splitlines()
    assert said == ["torch.compile does not work here, the doubler goes on without it: no C++ compiler found"]


def test_memory_is_not_the_compilers_fault(monkeypatch):
    def full(x):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    with pytest.raises(torch.OutOfMemoryError):  # the pipeline tries again in two passes
        Compiled("full", full, graphs=False)(torch.ones(3))


def test_options_that_exclude_each_other():
    with pytest.raises(ValueError, match="exclude each other"):
        mmaudio.Pipeline("tiny_16k", "cpu", low_memory=True, compile=True)


def test_the_pipeline_compiles(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: asked.append(function.__name__) or function)
    pipe = mmaudio.load("tiny_16k", device="cpu", compile=True)
    for name in ("network", "codec", "clip_text"):
        pipe.part(name)
    assert asked == ["velocity", "decode"]  # not Griffin-Lim
