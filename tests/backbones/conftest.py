"""What several tests of networks share."""

import torch


def used(model):
    """In double precision, with statistics and scales as after a training."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.double().state_dict().items():
        if name.endswith('running_var') or name.endswith('norm.weight'):
            tensor.uniform_(0.5, 2, generator=generator)
        elif tensor.is_floating_point():
            tensor.normal_(generator=generator)
    model.eval()
    return model
