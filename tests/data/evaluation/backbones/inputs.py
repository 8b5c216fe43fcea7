"""Deterministic inputs of the evaluation goldens (numpy + torch + fill.py only).

golden.json names every input by a recipe {"kind": ..., ...}; `make(name, recipe)` turns it into a tensor.

normal   float32, shift + scale*z, z = fill.tensor(recipe "name" or the input's own name, shape, seed)
chirp    float32 waveform (channels, samples), or (samples,) without "channels":
             w_c(t) = g_c * a(t) * (0.5 sin(2 pi (220 t + 300 t^2)) + 0.2 sin(2 pi 1760 t)) + noise*z_c + offset
         a = 2.2 for 0.50 <= t < 0.55 else 1;  g_c = 1/(1+c);  z_c = fill.tensor("chirp.<c>", (samples,), seed)
         computed in float64, rounded once; "silence": [s, e] sets samples s..e-1 to zero afterwards
impacts  float32 waveform (samples,): for every event i (time T, gain G, frequency F, decay D seconds), t >= T:
             G * exp(-(t-T)/D) * (0.7 sin(2 pi F (t-T)) + 0.3 z_i), plus floor*z;
         z_i = fill.tensor("impact.<i>", (samples,), seed), z = fill.tensor("floor", (samples,), seed)
pixels   uint8 (T, 3, H, W), integer arithmetic only, x = column, y = row, t = frame + first:
             R = (3x + 2y + 37t) mod 256;  G = (xy div 16 + 11t) mod 256;
             B = 40 + 175 * ((x div 12 + y div 9 + t) mod 2)
value    the literal, as a tensor of "dtype" (default float32)
json     the literal as it is (lists of names, ...)
"""

import numpy as np
import torch

import fill  # noqa: E402


def make(name, r):
    kind = r['kind']
    if kind == 'normal':
        return fill.tensor(r.get('name', name), r['shape'], r['seed'], r.get('scale', 1.0), r.get('shift', 0.0))
    if kind == 'chirp':
        return chirp(r['samples'], r['rate'], r['seed'], r.get('channels'), r.get('noise', 0.05), r.get('offset', 0.0),
                     r.get('silence'))
    if kind == 'impacts':
        return impacts(r['samples'], r['rate'], r['seed'], r['events'], r.get('floor', 0.0005))
    if kind == 'pixels':
        return pixels(r['frames'], r['height'], r['width'], r.get('first', 0))
    if kind == 'value':
        return torch.tensor(r['value'], dtype=getattr(torch, r.get('dtype', 'float32')))
    if kind == 'json':
        return r['value']
    raise ValueError(f'unknown recipe kind {kind!r}')


def chirp(samples, rate, seed, channels=None, noise=0.05, offset=0.0, silence=None):
    t = np.arange(samples) / rate
    a = np.where((t >= 0.50) & (t < 0.55), 2.2, 1.0)
    base = a * (0.5 * np.sin(2 * np.pi * (220 * t + 300 * t * t)) + 0.2 * np.sin(2 * np.pi * 1760 * t))
    out = np.stack([base / (1 + c) + noise * fill.tensor(f'chirp.{c}', (samples,), seed).double().numpy() + offset
                    for c in range(channels or 1)])
    if silence:
        out[:, silence[0]:silence[1]] = 0.0
    out = torch.from_numpy(out.astype(np.float32))
    return out if channels else out[0]


def impacts(samples, rate, seed, events, floor=0.0005):
    t = np.arange(samples) / rate
    w = floor * fill.tensor('floor', (samples,), seed).double().numpy()
    for i, (time, gain, freq, decay) in enumerate(events):
        d = t - time
        z = fill.tensor(f'impact.{i}', (samples,), seed).double().numpy()
        w += np.where(d >= 0, gain * np.exp(-np.maximum(d, 0.0) / decay)
                      * (0.7 * np.sin(2 * np.pi * freq * d) + 0.3 * z), 0.0)
    return torch.from_numpy(w.astype(np.float32))


def pixels(frames, height, width, first=0):
    t = np.arange(first, first + frames)[:, None, None]
    y = np.arange(height)[None, :, None]
    x = np.arange(width)[None, None, :]
    r = (3 * x + 2 * y + 37 * t) % 256
    g = (x * y // 16 + 11 * t) % 256
    b = 40 + 175 * ((x // 12 + y // 9 + t) % 2)
    return torch.from_numpy(np.stack([np.broadcast_to(c, (frames, height, width)) for c in (r, g, b)], 1).astype(np.uint8))
