"""The flow network: latents, time and conditions in, velocity out (paper, section 3)."""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmaudio.model.blocks import FinalBlock, JointBlock, StreamBlock
from mmaudio.model.layers import (
    MLP,
    ChannelLastConv1d,
    ConvMLP,
    TimestepEmbedder,
    layer_norm,
    nearest_exact_index,
    rope_table,
    sync_frame_index,
    unit_variance,
    without_convolutions,
)
from mmaudio.sequence import SequenceSpec

LEGACY_KEYS = ("t_embed.freqs", "latent_rot", "clip_rot")  # tables that old checkpoints carry; we compute them
CHOICES = {"sync_use": ("modulate", "sum", "none"), "missing": ("default", "zeros", "learned")}


@dataclass(frozen=True)
class MMAudioConfig:
    latent_dim: int  # channels of the codec's latents
    hidden_dim: int
    num_heads: int
    joint_blocks: int
    fused_blocks: int
    v2: bool = False  # SiLU instead of SELU, one more activation, wider time embedding
    clip_dim: int = 1024
    sync_dim: int = 768
    text_dim: int = 1024
    text_len: int = 77
    sync_tokens_per_segment: int = 8
    sync_frames_per_token: int = 2
    sync_in_time: bool = False  # each latent sees the frame of its moment; else tokens are stretched in their order
    unit_variance: bool = False  # of CLIP features and of what makes the global condition; else as small as they come
    # The paper's ablations (configs/experiment); its own choices are the defaults.
    sync_use: str = "modulate"  # every frame; sum: added to the visual tokens instead; none: sync features are ignored
    aligned_rope: bool = True  # latent and visual tokens are rotated on one time scale
    conv_mlp: bool = True  # False: plain MLPs with as many parameters
    missing: str = "default"  # empty visual features are learned, empty text is that of ""; zeros, learned: all are
    # Of distilled networks (train.py task=distill).
    guidance: float | None = None  # strength of the guidance that their velocities have in them: one pass per step
    few_step: bool = False  # their velocities are averages over the step that is taken, so it can be a long one

    def __post_init__(self):
        for name, choices in CHOICES.items():
            if (got := getattr(self, name)) not in choices:
                raise ValueError(f"{name} is {got!r}, expected one of {', '.join(choices)}")
        if self.hidden_dim % self.num_heads or (self.hidden_dim // self.num_heads) % 2:
            raise ValueError(f"hidden_dim {self.hidden_dim} must be an even multiple of num_heads {self.num_heads}")


SIZES = {
    "small_16k": MMAudioConfig(latent_dim=20, hidden_dim=448, num_heads=7, joint_blocks=4, fused_blocks=8),
    "small_44k": MMAudioConfig(latent_dim=40, hidden_dim=448, num_heads=7, joint_blocks=4, fused_blocks=8),
    "medium_44k": MMAudioConfig(latent_dim=40, hidden_dim=896, num_heads=14, joint_blocks=4, fused_blocks=8),
    "large_44k": MMAudioConfig(latent_dim=40, hidden_dim=896, num_heads=14, joint_blocks=7, fused_blocks=14),
    "large_44k_v2": MMAudioConfig(
        latent_dim=40, hidden_dim=896, num_heads=14, joint_blocks=7, fused_blocks=14, v2=True
    ),
    "tiny_16k": MMAudioConfig(
        latent_dim=20,
        hidden_dim=128,
        num_heads=2,
        joint_blocks=2,
        fused_blocks=4,
        clip_dim=64,
        sync_dim=128,
        text_dim=64,
        sync_in_time=True,
        unit_variance=True,
    ),
}


@dataclass(frozen=True)
class Conditions:
    """Everything the network needs besides latents and time; independent of t, so computed once per clip."""

    clip: Tensor  # (B, T, D) projected CLIP frames; (B, S, D) with sync features added if sync_use is sum
    sync: Tensor  # (B, L, D) projected sync features, resampled to the latents' rate; else (B, 1, D) zeros
    text: Tensor  # (B, N, D) projected text tokens
    clip_c: Tensor  # (B, D) their means, projected: parts of the global condition
    text_c: Tensor  # (B, D)
    global_c: Tensor  # (B, D) global_cond_mlp(clip_c + text_c)
    latent_rope: Tensor  # (L, head_dim / 2, 2) float32; shared by the batch
    clip_rope: Tensor  # (T or S, head_dim / 2, 2) float32; shared by the batch
    rows: Tensor | None = None  # (U, D) the different rows of global_c + sync, see `shared`
    row_of_frame: Tensor | None = None  # (B, L) index into them

    @property
    def batch(self) -> int:
        return self.sync.shape[0]

    def concat(self, other: "Conditions") -> "Conditions":
        """Both along the batch; lengths must agree."""
        per_sample = ("clip", "sync", "text", "clip_c", "text_c", "global_c")
        joined = {name: torch.cat([getattr(self, name), getattr(other, name)]) for name in per_sample}
        if self.rows is not None:
            joined["rows"] = torch.cat([self.rows, other.rows])
            joined["row_of_frame"] = torch.cat([self.row_of_frame, other.row_of_frame + len(self.rows)])
        return dataclasses.replace(self, **joined)

    def shared(self) -> "Conditions":
        """For times that are the same for the whole batch: then frames of equal condition are modulated alike.

        Stretched sync tokens repeat, samples of one clip have the same, and the empty features have next to no variety.
        """
        frames = (self.global_c.unsqueeze(1) + self.sync).flatten(0, 1)  # (B L, D)
        bits = frames.view(torch.int16 if frames.dtype.itemsize == 2 else torch.int32)  # not every device sorts floats
        rows, row_of_frame = torch.unique(bits.cpu(), dim=0, return_inverse=True)
        return dataclasses.replace(
            self,
            rows=rows.view(frames.dtype).to(frames.device),
            row_of_frame=row_of_frame.view(self.sync.shape[:2]).to(frames.device),
        )


class MMAudio(nn.Module):
    def __init__(self, config: MMAudioConfig):
        super().__init__()
        self.config = c = config
        D = c.hidden_dim
        activation = nn.SiLU if c.v2 else nn.SELU
        extra = [nn.SiLU()] if c.v2 else []

        self.audio_input_proj = nn.Sequential(
            ChannelLastConv1d(c.latent_dim, D, kernel_size=7, padding=3), activation(), ConvMLP(D, kernel_size=7)
        )
        self.clip_input_proj = nn.Sequential(nn.Linear(c.clip_dim, D), *extra, ConvMLP(D, kernel_size=3))
        self.sync_input_proj = nn.Sequential(
            ChannelLastConv1d(c.sync_dim, D, kernel_size=7, padding=3), activation(), ConvMLP(D, kernel_size=3)
        )
        self.text_input_proj = nn.Sequential(nn.Linear(c.text_dim, D), *extra, MLP(D))

        self.clip_cond_proj = nn.Linear(D, D)
        self.text_cond_proj = nn.Linear(D, D)
        self.global_cond_mlp = MLP(D)
        self.t_embed = TimestepEmbedder(D, D, max_period=1) if c.v2 else TimestepEmbedder(D, 256, max_period=10_000)

        self.interval_proj = nn.Linear(D, D, bias=False) if c.few_step else None

        self.joint_blocks = nn.ModuleList(
            JointBlock(D, c.num_heads, pre_only=i == c.joint_blocks - 1) for i in range(c.joint_blocks)
        )
        self.fused_blocks = nn.ModuleList(StreamBlock(D, c.num_heads, kernel_size=3) for _ in range(c.fused_blocks))
        self.final_layer = FinalBlock(D, c.latent_dim)

        self.sync_pos_emb = nn.Parameter(torch.zeros(1, 1, c.sync_tokens_per_segment, c.sync_dim))
        self.sync_frames_proj = nn.Linear(c.sync_dim, c.sync_frames_per_token * c.sync_dim) if c.sync_in_time else None
        self.latent_mean = nn.Parameter(torch.zeros(1, 1, c.latent_dim))
        self.latent_std = nn.Parameter(torch.ones(1, 1, c.latent_dim))
        self.empty_string_feat = nn.Parameter(torch.zeros(c.text_len, c.text_dim))
        self.empty_clip_feat = nn.Parameter(torch.zeros(1, c.clip_dim))
        self.empty_sync_feat = nn.Parameter(torch.zeros(1, c.sync_dim))
        if not c.conv_mlp:
            for name, module in list(self.named_modules()):
                if isinstance(module, ConvMLP):
                    self.set_submodule(name, without_convolutions(module))
        self.initialize_weights()
        self.freeze_constants()

    def initialize_weights(self):
        def xavier(module):
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

        self.apply(xavier)
        for layer in (self.t_embed.mlp[0], self.t_embed.mlp[2]):
            nn.init.normal_(layer.weight, std=0.02)
        # Zero gates: every block starts as the identity, and the network as the zero velocity, over any interval.
        for name, parameter in self.named_parameters():
            if "adaLN_modulation" in name or name.startswith(("final_layer.conv", "interval_proj")):
                nn.init.zeros_(parameter)

    def freeze_constants(self):
        """Parameters that are no matter of training ask for no gradient."""
        constants = [self.latent_mean, self.latent_std]
        if self.config.missing != "learned":
            constants += [self.empty_string_feat]
        if self.config.missing == "zeros":
            constants += [self.empty_clip_feat, self.empty_sync_feat]
        if self.config.sync_use == "none":
            constants += [self.empty_sync_feat, self.sync_pos_emb, *self.sync_input_proj.parameters()]
            constants += self.sync_frames_proj.parameters() if self.sync_frames_proj else []
        for parameter in constants:
            parameter.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        return self.latent_mean.device

    @property
    def dtype(self) -> torch.dtype:
        return self.audio_input_proj[0].weight.dtype

    def normalize(self, latent: Tensor) -> Tensor:
        """Codec latents (B, L, C) to the unit-scale latents the network works on."""
        return (latent - self.latent_mean) / self.latent_std

    def unnormalize(self, latent: Tensor) -> Tensor:
        return latent * self.latent_std + self.latent_mean

    def empty_clip(self, batch: int, spec: SequenceSpec) -> Tensor:
        return self.empty_clip_feat.expand(batch, spec.clip_len, -1)

    def empty_sync(self, batch: int, spec: SequenceSpec) -> Tensor:
        return self.empty_sync_feat.expand(batch, spec.sync_len, -1)

    def empty_text(self, batch: int) -> Tensor:
        return self.empty_string_feat.expand(batch, -1, -1)

    def encode_conditions(
        self, clip: Tensor | None, sync: Tensor | None, text: Tensor | None, spec: SequenceSpec, batch: int = 1
    ) -> Conditions:
        """Project features once per clip.

        Args:
            clip: (B, T, clip_dim) L2-normalised CLIP frame features; None is the learned empty feature.
            sync: (B, S, sync_dim) Synchformer features, S a multiple of 8; None is the learned empty feature.
            text: (B, 77, text_dim) L2-normalised CLIP token features; None is the stored feature of the empty string.
                (What is empty is another matter if the configuration's `missing` is not the default.)
            spec: gives the lengths; its duration may differ from the one the network was trained with.
            batch: the batch size, needed only if everything is None.

        Raises:
            ValueError: a length does not agree with `spec`.
        """
        batch = next((x.shape[0] for x in (clip, sync, text) if x is not None), batch)
        clip = self.empty_clip(batch, spec) if clip is None else clip
        sync = self.empty_sync(batch, spec) if sync is None else sync
        text = self.empty_text(batch) if text is None else text
        for name, x, length in (
            ("clip", clip, spec.clip_len),
            ("sync", sync, spec.sync_len),
            ("text", text, self.config.text_len),
        ):
            if x.shape[:2] != (batch, length):
                raise ValueError(
                    f"{name} features have shape {tuple(x.shape)}, expected ({batch}, {length}, ...) "
                    f"for {spec.duration:g} s"
                )

        if self.config.unit_variance:
            clip, text = unit_variance(clip), unit_variance(text)
        sync = sync.unflatten(1, (-1, self.config.sync_tokens_per_segment)) + self.sync_pos_emb  # (B, S/8, 8, sync_dim)
        sync = sync.flatten(1, 2).to(self.dtype)  # (B, S, sync_dim)
        if self.sync_frames_proj is not None:
            frames = self.sync_frames_proj(sync).unflatten(2, (self.config.sync_frames_per_token, -1)).flatten(1, 2)
            sync = frames[:, sync_frame_index(spec, sync.device)]  # (B, L, sync_dim)
        sync = self.sync_input_proj(sync)  # (B, S or L, D)
        clip = self.clip_input_proj(clip.to(self.dtype))  # (B, T, D)
        clip, sync = self._use_sync(clip, sync, spec)
        text = self.text_input_proj(text.to(self.dtype))  # (B, N, D)
        clip_c = self.clip_cond_proj(clip.mean(dim=1))  # (B, D)
        text_c = self.text_cond_proj(text.mean(dim=1))  # (B, D): padding tokens count, as in training
        semantic = layer_norm(clip_c + text_c) if self.config.unit_variance else clip_c + text_c

        head_dim = self.config.hidden_dim // self.config.num_heads
        clip_scale = spec.latent_len / clip.shape[1] if self.config.aligned_rope else 1.0
        return Conditions(
            clip=clip,
            sync=sync,
            text=text,
            clip_c=clip_c,
            text_c=text_c,
            global_c=self.global_cond_mlp(semantic),
            latent_rope=rope_table(spec.latent_len, head_dim, device=sync.device),
            clip_rope=rope_table(clip.shape[1], head_dim, clip_scale, device=sync.device),
        )

    def _use_sync(self, clip: Tensor, sync: Tensor, spec: SequenceSpec) -> tuple[Tensor, Tensor]:
        """Projected features to the visual tokens and to what is added to each latent frame's condition."""
        if self.config.sync_use == "modulate":
            return clip, sync[:, nearest_exact_index(sync.shape[1], spec.latent_len, sync.device)]  # (B, L, D)
        if self.config.sync_use == "sum":  # at the sync features' rate, so that no timing is lost
            clip = clip[:, nearest_exact_index(spec.clip_len, sync.shape[1], clip.device)] + sync  # (B, S or L, D)
        return clip, torch.zeros_like(sync[:, :1])  # (B, 1, D)

    def null_conditions(self, batch: int, spec: SequenceSpec, negative_text: Tensor | None = None) -> Conditions:
        """The unconditional branch of guidance: no video, and the negative prompt's features or the empty string."""
        return self.encode_conditions(None, None, negative_text, spec, batch=batch)

    def velocity(self, latent: Tensor, t: Tensor, conditions: Conditions, until: Tensor | None = None) -> Tensor:
        """Velocity of the flow at time t; of a few-step network its average on the way from t to `until`.

        Args:
            latent: (B, L, C) normalised latents; one batch of them serves several of `conditions`, in their order.
            t: (B,) in [0, 1], float32; 0 is noise, 1 is data. With `Conditions.shared` the same for the whole batch.
            until: (B,) in [t, 1], float32, the same as well then; for few-step networks alone, where None is t.
        """
        time = self.t_embed(t)  # (B, D)
        if until is not None:
            time = time + self.interval_proj(self.t_embed(until) - time)
        global_c = (time + conditions.global_c).unsqueeze(1)  # (B, 1, D)
        if conditions.rows is None:
            frame_c = global_c + conditions.sync  # (B, L, D); (B, 1, D) where sync features do not modulate
        else:
            frame_c = time[:1] + conditions.rows  # (U, D)
        row_of_frame = conditions.row_of_frame
        clip, text = conditions.clip, conditions.text

        latent = self.audio_input_proj(latent)  # (B, L, D)
        if len(latent) < conditions.batch:
            latent = latent.repeat(conditions.batch // len(latent), 1, 1)
        for block in self.joint_blocks:
            latent, clip, text = block(
                latent, clip, text, global_c, frame_c, conditions.latent_rope, conditions.clip_rope, row_of_frame
            )
        for block in self.fused_blocks:
            latent = block(latent, frame_c, conditions.latent_rope, row_of_frame)
        return self.final_layer(latent, global_c)  # (B, L, C)

    def forward(
        self, latent: Tensor, t: Tensor, clip: Tensor, sync: Tensor, text: Tensor, spec: SequenceSpec, *,
        no_clip: Tensor | None = None, no_sync: Tensor | None = None, no_text: Tensor | None = None,
        until: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Features straight to velocity: the one call of training, where conditions change with every step.

        It does all, what `encode_rows` does included, because parameters may be sharded outside.
        """
        conditions = self.encode_rows(clip, sync, text, spec, no_clip=no_clip, no_sync=no_sync, no_text=no_text)
        return self.velocity(latent, t, conditions, until)

    def encode_rows(
        self, clip: Tensor, sync: Tensor, text: Tensor, spec: SequenceSpec, *,
        no_clip: Tensor | None = None, no_sync: Tensor | None = None, no_text: Tensor | None = None,
    ) -> Conditions:  # fmt: skip
        """`encode_conditions` of a batch of which some rows lack something.

        no_clip, no_sync, no_text: (B,) bool, True for rows whose feature is replaced by the learned empty one.
        """
        batch = clip.shape[0]
        clip = _replaced(clip, self.empty_clip(batch, spec), no_clip)
        sync = _replaced(sync, self.empty_sync(batch, spec), no_sync)
        text = _replaced(text, self.empty_text(batch), no_text)
        return self.encode_conditions(clip, sync, text, spec)


def _replaced(feature: Tensor, empty: Tensor, rows: Tensor | None) -> Tensor:
    return feature if rows is None else torch.where(rows.view(-1, 1, 1), empty.to(feature.dtype), feature)
