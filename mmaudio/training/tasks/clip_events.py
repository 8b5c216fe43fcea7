"""CLIP that is also asked what sounds: of simulated clips it is known.

Telling clips apart teaches a small CLIP slowly, and only so much of the answer as tells them apart. The flow network
sees a frame's embedding and the mean of a caption's tokens, so kinds and materials are read from these very two. The
read-outs are linear, hence the features have it plain; they are not kept.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmaudio.features.clip import token_features
from mmaudio.stage import LABELS

EVENTS_WEIGHT = 0.5  # of the loss, beside the contrastive one


class EventReadout(nn.Module):
    """open_clip's `CLIP` with linear read-outs."""

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
        words = token_features(self.clip, tokens)  # (B, N, W)
        end = tokens.argmax(-1)  # (B,): the end token's id is the highest
        text = F.normalize(words[torch.arange(len(end), device=end.device), end] @ self.clip.text_projection, dim=-1)
        labels = self.seen(unit_variance(image)), self.told(unit_variance(F.normalize(words, dim=-1)).mean(1))
        return image, text, self.clip.logit_scale.exp(), torch.stack(labels, dim=1)


def unit_variance(x: Tensor) -> Tensor:
    """Features of unit length, as a flow network with `unit_variance` takes them."""
    return x * x.shape[-1] ** 0.5


def known_labels(events: list[dict]) -> Tensor:
    """Events of a simulated clip to (2, LABELS): kinds and materials that are seen to sound, and all that sound."""
    target = torch.zeros(2, len(LABELS))
    for event in events:
        names = [LABELS.index(name) for name in (event["kind"], event["material"]) if name]
        target[1, names] = 1
        if event["seen"]:
            target[0, names] = 1
    return target


def events_loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy, summed over labels, of the picture's and of the words' (B, 2, LABELS)."""
    each = F.binary_cross_entropy_with_logits(logits.float(), labels, reduction="none").sum(-1).mean(0)  # (2,)
    return each[0], each[1]
