"""Parameter filling for the evaluation backbones: fill.py plus the rules below (first match wins).

FIXED      spectrogram_extractor.*, logmel_extractor.* (DFT and mel matrices of PANNs and LAION-CLAP), *.attn_mask
           (shifted-window masks), integer tensors: left as constructed; num_batches_tracked stays 0
RUNNING    keys ending in running_mean / running_var (fill.py skips them); z as in fill.py from the key name:
             bn0 mean  -20 + 5 z      bn0 var  150 * max(0.1, 1 + 0.1 z)      (bn0: first or any path component)
             else mean  0.1 z         else var       max(0.1, 1 + 0.1 z)
CONV GAIN  PANNs convolutions, keys matching conv_block<i>.conv<j>.weight: sqrt(2) * the MATRIX value of fill.py
           (keeps the signal alive through twelve ReLUs)
Everything else: fill.value_for(key, shape, seed).  Keys are the full state-dict keys of the manifest, e.g.
"afeat_extractor.ast.layernorm.weight"; fill the whole Synchformer once, not its parts without their prefix.
"""
import re

import torch

import fill  # noqa: E402

FIXED = re.compile(r'(^|\.)(spectrogram_extractor\.|logmel_extractor\.|attn_mask$|num_batches_tracked$)')
BN0 = re.compile(r'(^|\.)bn0\.')
CONV = re.compile(r'^conv_block\d+\.conv\d+\.weight$')


def value_for(key, shape, seed):
    """float32 tensor for one state-dict entry, or None when it is to be left as constructed."""
    if FIXED.search(key):
        return None
    if key.endswith(('running_mean', 'running_var')):
        z = fill.tensor(key, shape, seed).double()
        if key.endswith('running_mean'):
            v = -20.0 + 5.0 * z if BN0.search(key) else 0.1 * z
        else:
            v = (1.0 + 0.1 * z).clamp_min(0.1) * (150.0 if BN0.search(key) else 1.0)
        return v.float()
    v = fill.value_for(key, shape, seed)
    if v is not None and CONV.search(key):
        v = (v.double() * 2.0**0.5).float()
    return v


@torch.no_grad()
def fill_module_(module, seed, prefix=''):
    """Fill a module in place through its state dict; prefix is prepended to each key for seeding only."""
    for key, old in module.state_dict().items():
        if torch.is_tensor(old) and old.is_floating_point():
            new = value_for(prefix + key, old.shape, seed)
            if new is not None:
                old.copy_(new)
    return module
