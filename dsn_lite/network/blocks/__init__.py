"""The building blocks: each has a static part that always runs and a dynamic part behind a gate."""

from dsn_lite.network.blocks.attention import DynamicAttention
from dsn_lite.network.blocks.convolution import DynamicConv
from dsn_lite.network.blocks.linear import DynamicFeedForward
from dsn_lite.network.blocks.recurrent import DynamicGRU

__all__ = ["DynamicAttention", "DynamicConv", "DynamicFeedForward", "DynamicGRU"]
