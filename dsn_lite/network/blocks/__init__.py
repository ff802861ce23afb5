"""The dynamic structures; held_gru.py is a compiled loop for one of them."""
