"""The data behind every picture: plain arrays and small tables out of what a run stored. Pure.

``pdbench.stored`` reads; a view computes; a chart draws. No view knows how it is drawn, and every figure here is one
of ``pdbench.measure``, down-sampled where a picture has no room for it (``views.thin``, ``views.cdf``).
"""
