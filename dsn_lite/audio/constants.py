"""Rate and frames of everything inside the project; importing it costs nothing."""

SAMPLE_RATE = 16_000
"""Samples per second inside the network."""
WINDOW = 512
"""Window length in samples (32 ms)."""
HOP = 256
"""Hop in samples (16 ms): 62.5 frames per second."""
BINS = WINDOW // 2 + 1
"""Frequency bins of one frame, F = 257."""
FRAMES_PER_SECOND = SAMPLE_RATE / HOP
