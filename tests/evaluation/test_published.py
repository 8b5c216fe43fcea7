from mmaudio.evaluation.published import PUBLISHED, published_rows
from mmaudio.evaluation.scorecard import METRICS
from mmaudio.variants import get_variant


def test_rows_speak_of_our_metrics_and_variants():
    for row in PUBLISHED:
        assert get_variant(row.system).name == row.system
        assert set(row.values) <= set(METRICS)
        assert row.source
        assert row.protocol
        assert abs(row.values["IB"]) <= 1  # a cosine
    assert published_rows("stage") == []
    assert len(published_rows("vggsound")) == 2
