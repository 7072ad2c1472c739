"""Networks as plain formulas of the papers, with the names of the published weights.

One module per slug: ``CASES`` are the stored cases (the formulas, and our class with its
arguments), ``KNOWN`` the authors' cases for ``make_plain.py --compare``.
"""
