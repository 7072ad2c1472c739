"""Studies of models: cost, robustness, receptive fields, shape and texture."""
