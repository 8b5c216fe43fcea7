"""The hearing stage of a small Synchformer: picture and sound learn to say the same things in the same places.

The offset stage compares two streams of features that share nothing but time, and a small head on a small machine does
not find out what to compare. Here the audio half and the head's two projections learn to tell onset and levels of the
sound, each in a channel of its own: what the stage `sound` taught the picture's features, from either side. The head's
transformer is not trained yet but set: attention looks from each moment at pictures that are earlier or later by one of
sixteen lags, so that the offset stage starts from a comparison and not from noise.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mmaudio.data.sampler import TensorBatch
from mmaudio.features.synchformer_audio import SAMPLE_RATE, SEGMENT_SAMPLES, SEGMENT_STEP, TOKENS_PER_SEGMENT
from mmaudio.features.synchformer_offset import MAX_OFFSET, OffsetHead, OffsetHeadConfig, OffsetTransformer, offset_grid
from mmaudio.training.task import Draw, Losses, Nets
from mmaudio.training.tasks.sync_sound import (
    BANDS,
    SAMPLES_PER_FRAME,
    band_levels,
    onset_strength,
    short_attention,
)

ANSWERS = 1 + BANDS  # onset and levels: the first channels of either projection
FRAMES, STEP = SEGMENT_SAMPLES // SAMPLES_PER_FRAME, SEGMENT_STEP // SAMPLES_PER_FRAME  # of a segment, 16 and 8
STILL = 0.01  # added to standard deviations: of silence they are zero
LAG_BLOCKS = 2  # of the transformer; a later one sums up
LONGEST, SHORTEST = 9.6, 0.9  # seconds: periods of the waves that tell the time
TIME, KIND, REST = 6.0, 3.0, 8.0  # size of the waves, and of the mark of pictures and sounds and of OFF and MOD
NEAR, ALIKE, MARK, VOTE = (
    0.67,
    1.0,
    7.0,
    40.0,
)  # how much time, answers and marks count in a match, and it in the result


class AnsweringHead(OffsetHead):
    """Projections that answer, and a transformer for the next stage."""

    def __init__(self, config: OffsetHeadConfig):
        super().__init__(config)
        start_from_lags(self.transformer, config)
        self.transformer.requires_grad_(False)

    def forward(self, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Video (B, S, 8, D) and audio (B, S, 6, D) features to what either says, (B, S, 8 or 6, ANSWERS)."""
        return self.vproj(video)[..., :ANSWERS].float(), self.aproj(audio)[..., :ANSWERS].float()


def hearing_loss(nets: Nets, batch: TensorBatch, draw: Draw) -> Losses:
    """Squared errors of onset and levels as seen and as heard, as shares of their variance in the batch."""
    with torch.no_grad(), torch.autocast(batch.audio.device.type, enabled=False):
        sound = torch.cat([onset_strength(batch.audio).unsqueeze(-1), band_levels(batch.audio)], dim=-1)
        sound = sound.unfold(1, FRAMES, STEP)  # (B, S, ANSWERS, 16)
    with short_attention(batch.audio.device):
        said = nets.network(batch.frames, batch.audio)
    parts = {}
    for name, answer in zip(("seen", "heard"), said, strict=True):
        most = F.adaptive_max_pool1d(sound.flatten(0, 1), answer.shape[2])  # the most of each token's time
        truth = most.unflatten(0, sound.shape[:2]).transpose(2, 3)  # (B, S, 8 or 6, ANSWERS)
        std, mean = torch.std_mean(truth, dim=(0, 1, 2))
        error = (answer - (truth - mean) / (std + STILL)).square()
        parts[f"{name}_onset"], parts[f"{name}_levels"] = error[..., 0].mean(), error[..., 1:].mean()
    return Losses(sum(parts.values()), {name: x.detach() for name, x in parts.items()})


@torch.no_grad()
def start_from_lags(transformer: OffsetTransformer, c: OffsetHeadConfig) -> None:
    """Every head of the first blocks matches sounds with pictures that are later by one lag; the last block votes.

    The channels of a token are answers, matches (one for each lag), and at the end waves of its time and a mark:
    positive for pictures, negative for sounds, large for OFF and MOD. A sound's attention goes to pictures if their
    time is its own plus the lag, as cosines of several frequencies tell, and their answers are alike; what is left over
    goes to OFF and MOD, so that this much says how badly the two match.
    """
    size, count = c.embed_dim // c.num_heads, LAG_BLOCKS * c.num_heads  # channels of a head; lags
    pairs = (size - ANSWERS - 1) // 2
    answers, matches = slice(0, ANSWERS), slice(ANSWERS, ANSWERS + count)
    when, mark = slice(c.embed_dim - 2 * pairs - 1, -1), c.embed_dim - 1
    assert pairs > 0, f"too many heads in {c}"
    assert matches.stop <= when.start, f"too few channels in {c}"
    waves = 2 * math.pi / torch.logspace(math.log10(LONGEST), math.log10(SHORTEST), pairs)
    table, first = transformer.pos_emb_cfg["pos_emb"][0], 1  # after OFF
    table.zero_()[:, mark] = REST
    for tokens, kind in ((c.video_tokens, KIND), (TOKENS_PER_SEGMENT, -KIND)):
        angle = moments(c.segments, tokens)[:, None] * waves
        rows = table[first : first + len(angle)]
        rows[:, when], rows[:, mark] = TIME * torch.cat([angle.cos(), angle.sin()], dim=1), kind
        first += len(angle) + 1  # and MOD
    for norm in (transformer.vis_in_lnorm, transformer.aud_in_lnorm):
        norm.weight[ANSWERS:] = 0
    for block in transformer.blocks:  # what is not set below starts from nothing
        for layer in (block.attn.query, block.attn.key, block.attn.proj, block.mlp[2]):
            layer.weight.zero_(), layer.bias.zero_()

    lags = torch.linspace(-MAX_OFFSET, MAX_OFFSET, count)
    for number, lag in enumerate(lags):
        attention, head = transformer.blocks[number % LAG_BLOCKS].attn, number // LAG_BLOCKS
        rows = slice(head * size, (head + 1) * size)
        query, key = attention.query.weight[rows], attention.key.weight[rows]
        cos, sin = (lag * waves).cos().diag(), (lag * waves).sin().diag()
        turn = torch.cat([torch.cat([cos, -sin], dim=1), torch.cat([sin, cos], dim=1)])
        query[: 2 * pairs, when], key[: 2 * pairs, when] = NEAR * turn, NEAR * torch.eye(2 * pairs)
        for side in (query, key):
            side[2 * pairs : -1, answers][:ANSWERS] = ALIKE * torch.eye(ANSWERS)
        attention.query.bias[rows][-1], key[-1, mark] = MARK, 1.0
        attention.value.weight[rows.start] = 0
        attention.value.weight[rows.start, mark], attention.proj.weight[ANSWERS + number, rows.start] = 0.1, -1.0
    attention = transformer.blocks[-1].attn
    attention.query.bias[size - 1 :: size], attention.key.weight[size - 1 :: size, mark] = -MARK, 1.0  # to sounds
    attention.value.weight[:count] = 0
    attention.value.weight[:count, matches] = attention.proj.weight[matches, :count] = torch.eye(count)
    spacing = 2 * MAX_OFFSET / (count - 1)
    transformer.off_head.weight.zero_(), transformer.off_head.bias.zero_()
    transformer.off_head.weight[:, matches] = VOTE * (1 - (offset_grid()[:, None] - lags).abs() / spacing).clamp(min=0)
    nothing = (torch.zeros(1, c.segments * tokens, c.embed_dim) for tokens in (c.video_tokens, TOKENS_PER_SEGMENT))
    transformer.off_head.bias -= transformer(*nothing)[0]  # lags that reach beyond the ends have fewer matches


def moments(segments: int, tokens: int) -> Tensor:
    """The middle of every token in seconds, (segments * tokens,)."""
    begins = torch.arange(segments)[:, None] * (SEGMENT_STEP / SAMPLE_RATE)
    return (begins + (torch.arange(tokens) + 0.5) * (SEGMENT_SAMPLES / SAMPLE_RATE / tokens)).flatten()
