"""A network compiled for one frame at a time: what is closed is not computed, not read and not waited for."""
