"""The mathematics: blocks with a gate, the policy, the network, and what it costs."""
