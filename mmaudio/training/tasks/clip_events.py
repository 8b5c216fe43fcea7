"""CLIP that is also asked what sounds: of simulated clips it is known.

Telling clips apart teaches a small CLIP slowly, and only so much of the answer as tells them apart. Kinds and materials
are read from a frame's embedding and from the mean of the features of a caption's tokens, which is close to what the
flow network's global condition is made of. The read-outs are linear, hence the features have it plain; they are not
kept.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmaudio.features.clip import token_features
from mmaudio.model.layers import unit_variance
from mmaudio.stage import LABELS
from mmaudio.training.tasks.sync_sound import event_labels

EVENTS_WEIGHT = 0.5  # of the loss, beside the contrastive one
READOUTS = ("seen", "told")  # what is not CLIP's own


class EventReadout(nn.Module):
    """open_clip's `CLIP` with linear read-outs: `seen` of a frame's embedding, `told` of a caption's tokens."""

    def __init__(self, clip: nn.Module):
        super().__init__()
        self.clip = clip
        width, dim = clip.text_projection.shape
        self.seen = nn.Linear(dim, len(LABELS))
        self.told = nn.Linear(width, len(LABELS))

    def forward(self, frames: Tensor, tokens: Tensor) -> tuple[Tensor, ...]:
        """Frames (B, 3, H, W) and token ids (B, N) to what `CLIP` returns: embeddings of unit length (B, D), (B, D) and
        their scale; and logits of the labels in both, (B, 2, LABELS)."""
        image = self.clip.encode_image(frames, normalize=True)  # (B, D)
        words = token_features(self.clip, tokens)  # (B, N, W): of all tokens, where `encode_text` gives the last alone
        end = tokens.argmax(-1)  # (B,): the end token's id is the highest
        text = F.normalize(words[torch.arange(len(end), device=end.device), end] @ self.clip.text_projection, dim=-1)
        logits = self.seen(unit_variance(image)), self.told(unit_variance(F.normalize(words, dim=-1)).mean(1))
        return image, text, self.clip.logit_scale.exp(), torch.stack(logits, dim=1)


def known_labels(events: list[dict]) -> Tensor:
    """Events of a simulated clip to (2, LABELS): what is seen to sound at any time of it, and what sounds at all."""
    target = torch.zeros(2, len(LABELS))
    for event in events:
        target[0 if event["seen"] else 1 :, event_labels(event)] = 1
    return target


def events_loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy, summed over labels, of the frames' and of the captions', both of (B, 2, LABELS)."""
    each = F.binary_cross_entropy_with_logits(logits.float(), labels, reduction="none").sum(-1).mean(0)  # (2,)
    return each[0], each[1]
