"""The four dynamic structures. Each has a static part, which always runs, and a dynamic part behind a gate per frame.

Tensors are laid out [B, T, F, C] (batch, frame, frequency band, channel); gates are [B, T], 1 open and 0 closed.
While training (gates with a gradient) the dynamic part runs on every frame and its result is multiplied by the gate.
Otherwise it runs on the open frames alone, and its weights are not touched when all are closed.
"""

from dsn_lite.blocks.attention import DynamicAttention
from dsn_lite.blocks.convolution import DynamicConv, DynamicConvTranspose
from dsn_lite.blocks.linear import DynamicFeedForward
from dsn_lite.blocks.recurrent import DynamicGRU

__all__ = ["DynamicAttention", "DynamicConv", "DynamicConvTranspose", "DynamicFeedForward", "DynamicGRU"]
