"""The networks, loaded as the official files would be, against the reference's numbers."""

import io
import zipfile

import numpy as np
import pytest
import torch

from mmaudio.evaluation.backbones import clap_laion, load_backbone, panns, passt, vggish
from mmaudio.evaluation.backbones.table import BACKBONES
from mmaudio.features.synchformer_audio import mel_segments
from mmaudio.features.synchformer_offset import Synchformer, own_key
from mmaudio.weights import WeightError, fingerprint, load_strict, read_state, save_safetensors


@pytest.fixture
def backbone(filled, tmp_path):
    """A backbone with the reference's weights, by way of a file like the official one."""

    def load(name, manifest, seed, wrap=lambda state: state):
        torch.save(wrap(filled(manifest, seed)), tmp_path / BACKBONES[name].files[0].name)
        return load_backbone(name, device="cpu", weights_dir=tmp_path)

    return load


def intermediate(module, call):
    """What `module` returns while `call()` runs, and what that returns."""
    seen = []
    hook = module.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    result = call()
    hook.remove()
    return seen[0], result


# ---- every official file fits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("manifest", "build", "options"),
    [
        ("panns_cnn14_16k", panns.Cnn14, panns.OPTIONS),
        ("vggish", vggish.VGG, {}),
        ("passt_s_swa_p16_128_ap476", passt.PasstNetwork, passt.OPTIONS),
        ("synchformer", Synchformer, {"rename": own_key}),
    ],
)
def test_the_official_file_loads_strictly(shapes, manifest, build, options):
    with torch.device("meta"):
        network = build()
        state = {key: torch.empty(shape) for key, (_, shape) in shapes(manifest).items()}
    load_strict(network, state, source=manifest, **options)
    state["other"] = state.pop(next(key for key in reversed(state) if not key.startswith("head_dist")))
    with pytest.raises(WeightError, match=r"1 keys missing .*1 keys unexpected \(other"):
        load_strict(network, state, source=manifest, **options)


def test_the_official_clap_file_loads_strictly(shapes):
    pytest.importorskip("transformers")
    with torch.device("meta"):
        network = clap_laion.build_network()
        state = {f"module.{key}": torch.empty(s) for key, (_, s) in shapes("clap_laion_htsat_base_roberta").items()}
    state["module.text_branch.embeddings.position_ids"] = torch.empty(1, 514)
    load_strict(network, clap_laion.converted(state), source="manifest")
    state["module.other"] = state.pop("module.text_branch.pooler.dense.bias")
    with pytest.raises(WeightError, match=r"1 keys missing .*pooler.*1 keys unexpected \(other"):
        load_strict(network, clap_laion.converted(state), source="manifest")


# ---- and gives the reference's numbers ------------------------------------------------------------------------------


def like_the_official_panns_file(state):
    return {"iteration": 1_000_000, "model": state, "mAP": np.float64(0.438), "order": np.arange(4)}


def check_panns(loaded, golden):
    wave = golden.input("waveform")
    found = {}
    for i in (1, 3, 6):
        block = getattr(loaded.network, f"conv_block{i}")
        block, (embedding, logits) = intermediate(block, lambda: loaded.network(wave[None]))
        found[f"conv_block{i}"] = block if i == 6 else torch.nn.functional.avg_pool2d(block, 2)
    golden.check(**found, embedding_2048=embedding, logits=logits)


def test_panns(case, backbone):
    golden = case("panns_2s")
    loaded = backbone("panns", "panns_cnn14_16k", golden.seed, like_the_official_panns_file)
    check_panns(loaded, golden)
    wave = golden.input("waveform")
    heard = loaded.audio(torch.stack([wave + 0.2, wave]), 16_000, 1.5)
    with torch.inference_mode():
        _, logits = loaded.network((wave - wave.mean())[None, :24_000])
    assert heard["embedding"].shape == (2048,)
    np.testing.assert_allclose(heard["logits"], logits[0].numpy(), atol=1e-4)
    assert heard["logits"].dtype == np.float32
    with pytest.raises(ValueError, match="PANNs needs at least 4960 samples at 16 kHz, got 4000"):
        loaded.audio(wave[None], 16_000, 0.25)


@pytest.mark.slow
def test_panns_8s(case, backbone):
    golden = case("panns_8s")
    check_panns(backbone("panns", "panns_cnn14_16k", golden.seed, like_the_official_panns_file), golden)


@pytest.mark.slow
def test_vggish(case, backbone):
    loaded = backbone("vggish", "vggish", case("vggish_2s").seed)
    for length in ("2s", "8s"):
        golden = case(f"vggish_{length}")
        wave = golden.input("waveform")
        features, embedding = intermediate(loaded.network.features, lambda: loaded.network(vggish.examples(wave)))  # noqa: B023
        golden.check(conv_features=features, embedding=embedding[None])
        heard = loaded.audio(wave[None], 16_000, 8.0)["embedding"]
        np.testing.assert_allclose(heard, loaded.network(vggish.examples(wave - wave.mean())).numpy(), atol=1e-5)


@pytest.mark.slow
def test_passt(case, backbone):
    loaded = backbone("passt", "passt_s_swa_p16_128_ap476", case("passt_2s").seed)
    network = loaded.network
    for length in ("2s", "8s"):
        golden = case(f"passt_{length}")
        wave = golden.input("waveform")
        with torch.inference_mode():
            mel = passt.log_mel(wave[None])
            x = network.tokens(mel)
            patches = network.patch_embed["proj"](mel.unsqueeze(1))
            first = network.blocks[0](x)
            for block in network.blocks:
                x = block(x)
            feature, logits = network(mel)
        golden.check(
            patches=patches, after_block0=first, normed_tokens=network.norm(x), features=feature, logits=logits
        )
    heard = loaded.audio(wave[None], 32_000, 8.0)
    feature, _ = network(passt.log_mel((wave - wave.mean())[None]))
    np.testing.assert_allclose(heard["embedding"], feature[0].numpy(), atol=1e-4)


@pytest.mark.slow
@torch.inference_mode()
def test_synchformer(case, backbone):
    golden = case("sync_whole")
    network = backbone("synchformer", "synchformer", golden.seed).network
    segments = network.visual.segment(golden.input("video"))
    video = torch.cat([network.visual(part) for part in segments.split(2, dim=1)], dim=1)
    audio = network.audio.encode(golden.input("waveform")[None])
    golden.check(video_features=video, audio_features=audio, logits=network.head(video, audio))

    golden, ast = case("sync_audio"), network.audio.afeat_extractor.ast
    mel = golden.input("spectrogram")[:, :, 0]
    tokens = ast.embeddings(mel.flatten(0, 1))
    first = x = ast.encoder["layer"][0](tokens)
    for layer in ast.encoder["layer"][1:]:
        x = layer(x)
    golden.check(
        patch_tokens=tokens,
        after_layer0=first,
        last_hidden_state=ast.layernorm(x),
        features=network.audio(mel),
        waveform_features=network.audio(mel_segments(golden.input("waveform")[None])),
    )

    golden, head = case("sync_head"), network.head
    video, audio = golden.input("video_features"), golden.input("audio_features")
    normed, logits = intermediate(head.transformer.ln_f, lambda: head(video[:, :14], audio[:, :14]))
    block, _ = intermediate(head.transformer.blocks[0], lambda: head(video[:, :14], audio[:, :14]))
    golden.check(
        first_logits=logits,
        first_off_token_normed=normed,
        first_block0=block,
        last_logits=head(video[:, -14:], audio[:, -14:]),
    )


@pytest.mark.slow
@torch.inference_mode()
def test_clap(case, filled, tmp_path):
    pytest.importorskip("transformers")
    golden = case("clap_laion")
    state = filled("clap_laion_htsat_base_roberta", golden.seed)
    index = clap_laion.build_network().audio_model.audio_encoder.layers[0].blocks[0].attention.self
    for key in state:
        if key.endswith("relative_position_index"):
            state[key] = index.relative_position_index
    weights, *tokenizer = (tmp_path / file.name for file in BACKBONES["clap_laion"].files)
    torch.save({"epoch": 15, "state_dict": {f"module.{key}": value for key, value in state.items()}}, weights)
    write_tokenizer(*tokenizer)
    loaded = load_backbone("clap_laion", device="cpu", weights_dir=tmp_path)
    encoder = loaded.network.audio_model.audio_encoder

    mel = clap_laion.log_mel(clap_laion.repeat_and_pad(golden.input("waveform"))[None])
    patches, hidden = intermediate(encoder.patch_embed, lambda: encoder(mel).pooler_output)
    stage, _ = intermediate(encoder.layers[0], lambda: encoder(mel))
    embedding = torch.nn.functional.normalize(loaded.network.audio_projection(hidden), dim=-1)
    golden.check(patch_tokens=patches, after_stage0=stage[0], audio_hidden_1024=hidden, audio_embedding=embedding)
    golden.check(text_embedding=loaded.text_of_ids(golden.input("token_ids"))["embedding"][None])
    heard = loaded.audio(golden.input("waveform")[None], 48_000, 8.0)["embedding"]
    np.testing.assert_allclose(heard, embedding[0].numpy(), atol=1e-3)  # without the mean, which is nearly 0 here


# ---- text ---------------------------------------------------------------------------------------------------------


def write_tokenizer(vocabulary, merges):
    """A small byte-level one with RoBERTa's special tokens, trained on two sentences."""
    from tokenizers.implementations import ByteLevelBPETokenizer

    trained = ByteLevelBPETokenizer()
    sentences = ["A dog's bark, then thunder rolls over the hills", "a dog barks at thunder and hills"]
    trained.train_from_iterator(sentences, 400, 1, show_progress=False, special_tokens=["<s>", "<pad>", "</s>"])
    trained.save_model(str(vocabulary.parent), "trained")
    (vocabulary.parent / "trained-vocab.json").rename(vocabulary)
    (merges.parent / "trained-merges.txt").rename(merges)


def test_the_tokenizer_is_robertas(tmp_path):
    transformers = pytest.importorskip("transformers")
    vocabulary, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    write_tokenizer(vocabulary, merges)
    ours = clap_laion.read_tokenizer(vocabulary, merges)
    theirs = transformers.RobertaTokenizer(vocab=str(vocabulary), merges=str(merges))
    for text in ("a dog barks", " A dog's bark,  thunder!", "", "é 犬 " + "thunder over hills " * 40):
        expected = theirs(text, padding="max_length", truncation=True, max_length=77)["input_ids"]
        assert ours.encode(text).ids == expected
        assert len(expected) == 77


# ---- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("numpy_module", [b"numpy._core", b"numpy.core"])
def test_a_checkpoint_with_numpy_values_beside_its_weights_is_read(tmp_path, zipped, numpy_module):
    """As numpy 2 and numpy 1 write them."""
    state = {"w": torch.arange(6.0).view(2, 3)}
    content = like_the_official_panns_file(state) | {"seen": np.array([True]), "loss": np.float32(0.5)}
    torch.save(content, tmp_path / "new.pth", _use_new_zipfile_serialization=False)
    raw = (tmp_path / "new.pth").read_bytes()
    assert b"numpy._core.multiarray" in raw
    path = tmp_path / "file.pth"
    if zipped:
        rewrite_zip(content, path, numpy_module)
    else:
        path.write_bytes(raw.replace(b"numpy._core", numpy_module))
    assert torch.equal(read_state(path)["w"], state["w"])
    save_safetensors(tmp_path / "plain.safetensors", state)
    assert fingerprint(path) == fingerprint(tmp_path / "plain.safetensors")


def rewrite_zip(content, path, numpy_module):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"numpy._core", numpy_module))


def test_code_beside_the_weights_is_still_refused(tmp_path):
    class Harmful:
        def __reduce__(self):
            return print, ("harm",)

    weights = {"model": {"w": torch.ones(1)}}
    torch.save(weights | {"order": Harmful()}, tmp_path / "f.pth")
    with pytest.raises(WeightError, match=r"unsafe, it asks for print,"):
        read_state(tmp_path / "f.pth")
    torch.save(weights | {"order": np.array([Harmful()], dtype=object)}, tmp_path / "g.pth")
    with pytest.raises(WeightError, match="ObjectDType"):
        read_state(tmp_path / "g.pth")
