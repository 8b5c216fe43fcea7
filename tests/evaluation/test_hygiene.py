"""The parts of the data check: fingerprints, search, captions, what is wrong with a clip, sets of clips."""

import numpy as np
import pytest
import soundfile
from hygienefiles import RATE, noise, pictures

from mmaudio.evaluation.hygiene.captions import Moved, moved_captions, stretches
from mmaudio.evaluation.hygiene.comparison import align, compare, diagonal_sums
from mmaudio.evaluation.hygiene.errors import HygieneError
from mmaudio.evaluation.hygiene.fingerprint import (
    GRID,
    HOP,
    PICTURE_BITS,
    fingerprint,
    mirrored_codes,
    picture_code,
)
from mmaudio.evaluation.hygiene.listening import Fit
from mmaudio.evaluation.hygiene.looking import Facts, Look, clipped, look, problems
from mmaudio.evaluation.hygiene.overlap import groups
from mmaudio.evaluation.hygiene.search import EXACT, CodeIndex
from mmaudio.evaluation.hygiene.sets import read_set, source_of
from mmaudio.evaluation.hygiene.store import Store, packed, unpacked
from mmaudio.media import MediaError
from mmaudio.stage import KINDS

# ---- fingerprints


def test_a_cut_quiet_and_mirrored_copy_is_the_same_clip_and_says_where_it_begins():
    sound, frames = noise(6), pictures(6)
    one = fingerprint(sound, RATE, frames)
    resampled = np.interp(np.arange(0, 5.5, 1 / 22050) + 0.5, np.arange(len(sound)) / RATE, sound)
    match = compare(one, fingerprint(0.1 * resampled.astype(np.float32), 22050, frames[4:, :, ::-1] * 0.7))
    assert match.what == "sound and picture"
    assert match.mirrored
    assert match.offset == pytest.approx(0.5, abs=HOP)
    back = compare(fingerprint(sound[RATE // 2 :], RATE, frames[4:]), one)
    assert back.offset == pytest.approx(-0.5, abs=HOP)
    assert not back.mirrored


def test_sound_or_picture_alone_is_enough_and_other_clips_are_others():
    one = fingerprint(noise(5), RATE, pictures(5))
    assert compare(one, fingerprint(noise(5), RATE, pictures(5, seed=1))).what == "sound"
    assert compare(one, fingerprint(noise(5), RATE, None)).what == "sound"
    assert compare(one, fingerprint(noise(5, seed=1), RATE, pictures(5))).what == "picture"
    assert compare(one, fingerprint(None, 0, pictures(5))).what == "picture"
    assert compare(one, fingerprint(noise(5, seed=1), RATE, pictures(5, seed=1))) is None
    frozen = np.repeat(pictures(5)[:1], 40, axis=0)  # one photograph, two sounds
    assert compare(fingerprint(noise(5), RATE, frozen), fingerprint(noise(5, 1), RATE, frozen)) is None
    assert compare(fingerprint(None, 0, frozen), fingerprint(None, 0, frozen)).what == "picture"
    nothing = fingerprint(np.zeros(5 * RATE, np.float32), RATE, np.zeros((40, GRID, GRID), np.float32))
    assert compare(nothing, nothing) is None


def test_the_offset_of_two_tracks_is_found_by_agreement():
    rng = np.random.default_rng(0)
    track = rng.integers(-1, 2, (60, 8)).astype(np.int8)
    found = align(track, track[13:50], step=0.125)
    assert found.cosine == pytest.approx(1)
    assert found.offset == 13 * 0.125
    assert found.evidence == np.abs(track[13:50]).sum()
    assert abs(align(track, -track, 0.125).cosine) < 0.5
    table = rng.random((4, 3))
    expected = [sum(table[t, u] for t in range(4) for u in range(3) if t - u == k) for k in range(-2, 4)]
    np.testing.assert_allclose(diagonal_sums(table), expected)


def test_the_code_of_a_mirrored_picture_is_the_mirrored_code():
    picture = np.random.default_rng(0).uniform(0, 255, (GRID, GRID)).astype(np.float32)
    code, other = (np.unpackbits(picture_code(p)) for p in (picture, picture[:, ::-1]))
    mirrored = np.unpackbits(mirrored_codes(picture_code(picture)[None])[0])
    assert (mirrored == other).all()
    assert (code != other).sum() > PICTURE_BITS / 4


# ---- search


@pytest.mark.parametrize("count", [3000, EXACT + 5000])
def test_codes_that_differ_in_a_few_bits_are_found(count):
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (count, 32), np.uint8)
    queries = codes[:200] ^ np.packbits(rng.random((200, 256)) < 0.05, axis=1)
    blocks = list(CodeIndex(codes).nearest(queries, radius=40, count=4))
    assert sum(size for size, _ in blocks) == 200
    pairs = np.concatenate([pairs for _, pairs in blocks])
    assert (pairs[:, 0] == pairs[:, 1]).all()
    assert len(pairs) >= 190


def test_things_hang_together_by_way_of_others():
    assert groups(6, [(4, 2), (2, 5), (1, 3)]) == [0, 1, 2, 1, 2, 2]


# ---- captions


def test_a_stretch_of_shifted_captions_is_found_and_rewordings_are_not():
    known = [f"caption {i}" for i in range(50)]
    ours = known[:20] + known[22:30] + known[28:]  # rows 20 to 27 have those of 22 to 29
    ours[40], ours[5] = "a rewording", "Caption  5"
    same = {i: i for i in range(50)}
    assert moved_captions(ours, known, same) == [Moved(i, i + 2, 2) for i in range(20, 28)]
    assert moved_captions(known, known, same) == []
    other_rows = {49 - i: i for i in range(50)}  # the same clips in another order
    assert [m.row for m in moved_captions(ours[::-1], known, other_rows)] == list(range(22, 30))


def test_two_captions_that_changed_places_are_found():
    known = [f"caption {i}" for i in range(9)]
    ours = [*known[:3], known[6], *known[4:6], known[3], *known[7:]]
    same = {i: i for i in range(9)}
    assert moved_captions(ours, known, same) == [Moved(3, 6, None), Moved(6, 3, None)]


def test_labels_that_many_clips_share_are_no_evidence():
    rng = np.random.default_rng(0)
    known = [f"label {i}" for i in rng.integers(0, 5, 400)]
    ours = list(known)
    for i in range(0, 400, 40):
        ours[i] = f"label {rng.integers(0, 5)}"
    assert [m for m in moved_captions(ours, known, {i: i for i in range(400)}) if m.shift is not None] == []
    shifted = [*known[1:], known[0]]
    assert len(moved_captions(shifted, known, {i: i for i in range(400)})) > 300


def test_stretches_are_the_runs_that_gain_most():
    gains = np.array([-1, 5, -1, 9, -20, 3, 3, -9, 12], float)
    assert stretches(gains, 10) == [(1, 4), (8, 9)]
    assert stretches(gains, 14) == []
    assert stretches(np.zeros(0), 1) == []


def test_captions_that_name_other_sounds_are_heard():
    words = {"rain": "rain falls on leaves", "bell": "a bell chimes", "engine": "an engine runs", "tick": "it ticks"}
    kinds = [list(words)[i] for i in np.random.default_rng(0).integers(0, 4, 40)]
    heard = [np.where(np.array(KINDS) == kind, 0.9, 0.1) for kind in kinds]
    captions = [words[kind] for kind in kinds]
    assert Fit(heard, captions).shifted() == []
    shifted = captions[:10] + captions[11:31] + captions[30:]
    assert all(shift == -1 and 10 <= row < 31 for row, shift in Fit(heard, shifted).shifted())
    assert len(Fit(heard, shifted).shifted()) >= 18
    assert Fit([None] * 40, captions).shifted() == []


# ---- one clip


def test_what_is_cut_off_at_the_peak():
    sound = noise(3)
    assert clipped(sound) == 0
    assert clipped((sound * 20).clip(-1, 1)) > 0.1
    assert clipped(0.5 * (sound * 20).clip(-1, 1)) > 0.1
    assert clipped(2 * noise(3, seed=1) / np.abs(noise(3, seed=1)).std()) > 0  # as a codec gives it back
    assert clipped(np.zeros(100, np.float32)) == 0


def test_facts_become_problems():
    fine = Facts(8.0, 8.0, -20.0, 0.0, 80.0, None, False)
    assert problems(fine, 1.0) == []
    bad = Facts(0.3, None, -90.0, 0.5, None, "is damaged", True)
    assert [kind for kind, _ in problems(bad, 1.0)] == ["damaged", "no picture", "short", "silent"]
    mute = Facts(None, 8.0, None, None, 2.0, None, False)
    assert [kind for kind, _ in problems(mute, 1.0)] == ["no sound", "still"]
    loud = Facts(8.0, 0.2, -3.0, 0.5, 2.0, None, False)
    assert [kind for kind, _ in problems(loud, 1.0)] == ["short", "clipped"]


def test_files_that_are_no_clips(tmp_path):
    nan = tmp_path / "nan.wav"
    soundfile.write(nan, np.array([0.1, np.nan] * 9000), RATE, subtype="FLOAT")
    with pytest.raises(MediaError, match="NaN"):
        look(nan, 0, 30)
    page = tmp_path / "page.mp4"
    page.write_text("<html></html>")
    with pytest.raises(MediaError):
        look(page, 0, 30)
    sound = tmp_path / "sound.mp4"
    soundfile.write(sound, noise(2), RATE, format="WAV")
    assert look(sound, 0, 30).facts.wanting
    flac = tmp_path / "cut.flac"
    soundfile.write(flac, noise(8), RATE)
    flac.write_bytes(flac.read_bytes()[:60_000])
    assert "too early" in look(flac, 0, 30).facts.damage


# ---- the store


def test_what_is_stored_comes_back_and_damage_is_told(tmp_path, monkeypatch):
    path = tmp_path / "new" / "fingerprints.sqlite"
    clip = fingerprint(noise(3), RATE, pictures(3))
    facts = Facts(3.0, 3.0, -20.0, 0.0, 80.0, "is damaged", False)
    store = Store(path)
    store.add([("a 0 30", Look(facts, clip)), ("b 0 30", Look(facts, fingerprint(None, 0, pictures(3))))])
    assert dict(store.facts(["a 0 30", "not there"])) == {"a 0 30": facts}
    found = dict(store.fingerprints(store.keys()))
    for name, value in vars(clip).items():
        np.testing.assert_array_equal(getattr(found["a 0 30"], name), value, err_msg=name)
    assert found["b 0 30"].sound.shape == (0, 32)
    monkeypatch.setattr("mmaudio.evaluation.hygiene.store.PATIENCE", 0.01)
    other = Store(path)
    store.database.execute("begin exclusive")
    with pytest.raises(HygieneError, match="another run"):
        other.add_files([("a.mp4", 1, 1, "content")])
    store.database.rollback()
    other.close()
    store.database.execute("pragma user_version = 99")
    store.close()
    with pytest.raises(HygieneError, match="version 99"):
        Store(path)
    path.write_bytes(b"no database, but long enough to be looked at" * 50)
    with pytest.raises(HygieneError, match="delete it"):
        Store(path)
    trits = np.random.default_rng(0).integers(-1, 2, (7, 32)).astype(np.int8)
    assert (unpacked(packed(trits), 32) == trits).all()


# ---- sets


def test_tables_of_ids_are_read_as_they_are_published(tmp_path):
    vggsound = tmp_path / "vggsound.csv"
    vggsound.write_text('---g-f_I2yQ,1,"people, many",test\n--0PQM4-hqg,30,waterfall,train\n')
    found = read_set("v", vggsound)
    assert [(i.id, i.caption, i.path) for i in found.items] == [
        ("---g-f_I2yQ", "people, many", None), ("--0PQM4-hqg", "waterfall", None),
    ]  # fmt: skip
    found.write(tmp_path / "clean.csv", [True, False])
    assert (tmp_path / "clean.csv").read_text() == '---g-f_I2yQ,1,"people, many",test\n'
    audiocaps = tmp_path / "audiocaps.csv"
    audiocaps.write_text("audiocap_id,youtube_id,start_time,caption\n1,rqfQRErjfk8,170,Rain\n")
    assert [(i.id, i.caption) for i in read_set("a", audiocaps).items] == [("rqfQRErjfk8", "Rain")]
    plain = tmp_path / "ids.txt"
    plain.write_text("abc\ndef\n")
    assert [i.id for i in read_set("p", plain).items] == ["abc", "def"]
    for name in ("rqfQRErjfk8", "YrqfQRErjfk8", "rqfQRErjfk8_000170", "rqfQRErjfk8_30000_40000", "007_rqfQRErjfk8-0"):
        assert source_of(name) == "rqfQRErjfk8"
    assert source_of("my_own_clip") == "my_own_clip"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("empty.tsv", "", "lists no clips"),
        ("header.tsv", "id\tpath\n", "lists no clips"),
        ("twice.tsv", "id\tpath\na\tx.mp4\na\ty.mp4\n", "on line 2 already"),
        ("hostile.tsv", "id\tpath\n../../etc\tx.mp4\n", "cannot be part of a file name"),
        ("ragged.csv", "id,caption\na,b,c\n", "has 3 fields"),
        ("control.csv", "id\n\x1b[2J\n", "not printable"),
        ("binary.csv", b"\xff\xfe\x00\x01", "UTF-8"),
    ],
)
def test_lists_that_cannot_be_used_are_one_line(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(HygieneError, match=message) as caught:
        read_set("set", path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_media_or_not_there(tmp_path):
    with pytest.raises(HygieneError, match="no video or audio"):
        read_set("set", tmp_path)
    with pytest.raises(HygieneError, match="there is no such"):
        read_set("set", tmp_path / "missing.tsv")
