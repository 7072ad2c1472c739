"""Networks as plain formulas, from the papers and the names of the published weights.

One module per slug: ``forward(weights, x, **official arguments)`` gives the maps, ``cases`` lists
what is stored, ``known`` names the cases of the authors' code that the formulas must reproduce.
"""
