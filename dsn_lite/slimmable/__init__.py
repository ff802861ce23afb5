"""Networks with widths in place of gates: one set of weights, of which a layer runs the first channels alone.

layers.py has the layers, choice.py the decision among widths, cost.py what each width costs.
"""
