"""Which of AudioSet's 527 classes are voices and music, and how often they are heard where they should not be.

Indices are those of AudioSet's `class_labels_indices.csv` (Google, CC BY 4.0), the order in which PANNs and PaSST
give their logits.
"""

import numpy as np

CLASSES = 527
SPEECH = (*range(16), 68, 70)  # "Speech" to "Whispering", also shouted or synthesised; "Chatter"; "speech babble"
SINGING = tuple(range(27, 38))  # "Singing" to "Humming"
# "Music", then the styles, uses and moods from "Pop music" to "Scary music". The instruments between are left out:
# things that are struck are heard as drums, gongs and bells.
MUSIC = (*SINGING, 137, *range(216, 283))
THRESHOLD = 0.5


def speech_and_music(
    logits_generated: np.ndarray, logits_reference: np.ndarray, threshold: float = THRESHOLD
) -> dict[str, float]:
    """{"speech", "music"}: shares of generated clips in which a tagger hears it, and does not in their reference.

    It hears it where the probability of one of the classes reaches `threshold`.

    Args:
        logits_generated, logits_reference: (N, 527), pairs of rows.

    Raises:
        ValueError: no pairs, other shapes, or a threshold that is no probability.
    """
    generated, reference = np.asarray(logits_generated), np.asarray(logits_reference)
    if generated.shape != reference.shape or generated.ndim != 2 or generated.shape[1] != CLASSES:
        raise ValueError(f"expected pairs of logits (N, {CLASSES}), got {generated.shape} and {reference.shape}")
    if not len(generated):
        raise ValueError("speech and music need at least one pair of clips")
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must be between 0 and 1, got {threshold}")
    least = np.log(threshold / (1 - threshold))  # as a logit

    def share(classes: tuple[int, ...]) -> float:
        heard, expected = (logits[:, list(classes)].max(1) >= least for logits in (generated, reference))
        return float(np.mean(heard & ~expected))

    return {"speech": share(SPEECH), "music": share(MUSIC)}
