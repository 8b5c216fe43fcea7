import fill
import numpy as np
import pytest
import torch

from mmaudio.evaluation.metrics import cosine_scores, desync, frechet_distance, inception_score, kl_divergences
from mmaudio.evaluation.pairing import Pairs, clip_id, pair
from mmaudio.features.synchformer_offset import OffsetHead, offset_grid
from mmaudio.weights import load_strict

SYNCHFORMER = "manifests/synchformer_official_full.json"
CUT_BY_LENGTH = {"dog_barking_loud_012", "audiocaps_test_000123", "a_name_of_exactly_thirty_chars"}


def test_ids_of_names(golden):
    case = golden("names")
    published = case.outputs["ids"]
    assert {stem for stem in case.input("stems") if clip_id(stem) != published[stem]} == CUT_BY_LENGTH
    assert all(clip_id(stem) == stem for stem in CUT_BY_LENGTH)
    assert clip_id("000000014_zxpo56cpUBU_000007-12") == "zxpo56cpUBU_000007"
    assert clip_id("Yzxpo56cpUBU_0000070") == "Yzxpo56cpUBU_0000070"
    assert clip_id("zxpo56cpUBU_00000٧-0") == "zxpo56cpUBU_00000٧-0"  # a digit, but no id


def test_pairs_are_those_of_the_published_evaluation(golden):
    case = golden("pairing")
    ids, stems, used = case.input("gt_ids"), case.input("generated_stems"), case.outputs["used_generated_stems"]
    pairs = pair(stems, ids)
    assert pairs.generated == tuple(sorted(used["FD-PASST, KL-PASST, ISC-PASST"]))
    assert pairs.reference[pairs.generated.index("Ytuvwxyz0123_000050_0")] == "tuvwxyz0123_000050"
    assert pairs.lone_generated == ("some_other_name", "unknownclip_000000")
    assert pairs.lone_reference == ("pairing0Fff_000130", "pairing0Ggg_000140", "pairing0Hhh_000150")
    assert pairs.same_name().generated == tuple(sorted(used["KL-PANNS"]))
    assert pairs.having(ids[:-2]).generated == tuple(sorted(used["IB-Score"]))
    assert pairs.having(ids[:4]).generated == tuple(sorted(used["DeSync"]))
    assert pairs.having(ids[1:]).generated == tuple(sorted(used["CLAP"]))


def features(case, kind, names, *shape, scale=1.0):
    seed = case.config["feature_seed"]
    return np.stack([fill.tensor(f"{kind}.{name}", shape, seed, scale).numpy() for name in names])


def test_the_published_evaluation_from_features_to_metrics(golden):
    case = golden("pairing")
    ids, stems = case.input("gt_ids"), case.input("generated_stems")
    pairs = pair(stems, ids)

    def distance(kind, *shape, made=stems, true=ids):
        sides = (features(case, f"{side}.{kind}", names, *shape) for side, names in (("gen", made), ("gt", true)))
        return frechet_distance(*(rows.reshape(-1, shape[-1]) for rows in sides))

    def logits(kind, side, names):
        return features(case, f"{side}.{kind}_logits", names, 527, scale=2.0)

    def divergence(kind, these):
        return kl_divergences(logits(kind, "gt", these.reference), logits(kind, "gen", these.generated)).mean()

    def similarity(kind, width, known):
        these = pairs.having(known)
        sides = (("gt", these.reference), ("gen", these.generated))
        return cosine_scores(*(features(case, f"{side}.{kind}", names, width) for side, names in sides)).mean()

    in_pairs = [stem for stem in stems if stem in pairs.generated]  # inception scores go by the order of the cache
    found = {
        "FD-VGG": distance("vggish", 4, 12),
        "FD-PANN": distance("panns", 8),
        "FD-PASST": distance("passt", 6, made=pairs.generated, true=pairs.reference),
        "KL-PANNS-softmax": divergence("panns", pairs.same_name()),
        "KL-PASST-softmax": divergence("passt", pairs),
        "IB-Score": similarity("ib", 32, ids[:-2]),
        "LAION-CLAP-Score": similarity("laion", 20, ids[1:]),
        "MS-CLAP-Score": similarity("ms", 20, ids[1:]),
    }
    for name, kind, made in (("ISC-PANNS", "panns", stems), ("ISC-PASST", "passt", in_pairs)):
        found[f"{name}-mean"], found[f"{name}-std"] = inception_score(logits(kind, "gen", made))
    expected = {name: value for name, value in case.outputs["metrics"].items() if name != "DeSync"}
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)

    alone = {
        "FD-VGG": found["FD-VGG"],
        "FD-PANN": found["FD-PANN"],
        "FD-PASST": distance("passt", 6),
        "ISC-PANNS-mean": found["ISC-PANNS-mean"],
        "ISC-PANNS-std": found["ISC-PANNS-std"],
    }
    alone["ISC-PASST-mean"], alone["ISC-PASST-std"] = inception_score(logits("passt", "gen", stems))
    case.check("unpaired_run", alone)


@pytest.mark.slow  # the real head on ten runs
@torch.inference_mode()
def test_the_published_desync(golden, kit):
    case = golden("pairing")
    these = pair(case.input("generated_stems"), case.input("gt_ids")).having(case.input("gt_ids")[:4])

    def sync(side, names, tokens):
        rows = features(case, f"{side}.sync", names, 24, tokens, 768)
        common = features(case, f"{side}.sync_common", names, 3, 1, 768, scale=4.0)
        return torch.from_numpy(rows + common.repeat(8, axis=1))

    with torch.device("meta"):
        head = OffsetHead().eval()
    shapes = {k: s for k, s in kit.shapes(SYNCHFORMER).items() if not k.startswith(("vfeat_", "afeat_"))}
    load_strict(head, fill.fill_state_dict(shapes, case.config["fill_seed"]), source="head")
    video, audio = sync("gt", these.reference, 8), sync("gen", these.generated, 6)
    runs = [offset_grid()[head(video[:, run], audio[:, run]).argmax(1)] for run in (slice(14), slice(-14, None))]
    found = desync(torch.stack(runs, 1).numpy()).mean()
    assert found == pytest.approx(case.outputs["metrics"]["DeSync"], rel=1e-6)


def test_nothing_pairs():
    pairs = pair(["c", "a", "b"], ["d"])
    assert pairs == Pairs((), (), ("a", "b", "c"), ("d",))
    assert len(pairs) == 0
    assert pairs.problem() == "3 generated names pair with no reference: a, b, c"
    many = pair([f"x{i}" for i in range(7)], []).problem()
    assert many == "7 generated names pair with no reference: x0, x1, x2, x3, x4, ..."
    assert pair([], []) == Pairs((), ())
    assert pair(["a"], ["a", "b"]).problem() is None


def test_a_reference_may_be_decorated_itself():
    pairs = pair(["zxpo56cpUBU_000007-0", "zxpo56cpUBU_000007-1"], ["zxpo56cpUBU_000007-0", "zxpo56cpUBU_000007"])
    assert pairs.reference == ("zxpo56cpUBU_000007-0", "zxpo56cpUBU_000007")


def test_a_name_that_is_there_twice():
    with pytest.raises(ValueError, match="1 generated names are there twice, keep one of each: a"):
        pair(["a", "a", "b"], ["a"])
    with pytest.raises(ValueError, match="1 reference names are there twice"):
        pair(["a"], ["b", "b"])
