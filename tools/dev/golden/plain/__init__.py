"""Networks as plain formulas, from the papers and by the names of the published weights.

One module per slug: ``CASES`` are the stored ones (our class and arguments beside the formulas),
``KNOWN`` the authors' cases that the formulas are compared with (``make_plain.py --compare``).
"""
