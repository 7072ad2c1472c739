"""One module per slug: ``build(module, config, weights)`` makes our module from the official one's
name, config and state dict. A config that has no counterpart raises ``ValueError`` naming the
argument."""
