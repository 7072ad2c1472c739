"""Synchronised batch normalisation on CPUs, against that of the whole batch."""

from pathlib import Path

import torch
from torch import distributed, nn

from hybrid_mm.engine.gloo_sync_batch_norm import GlooSyncBatchNorm, to_gloo_sync_batch_norm


def _batch_norm(out: Path) -> None:
    """Body of a process of the next test."""
    distributed.init_process_group('gloo')
    rank = distributed.get_rank()
    torch.manual_seed(0)
    layer = GlooSyncBatchNorm(5).double()
    with torch.no_grad():
        layer.weight.uniform_(0.5, 2)
        layer.bias.uniform_(-1, 1)
    x = (torch.randn(6, 5, 3, 4, dtype=torch.float64) * 3 + 100).requires_grad_()
    cotangent = torch.randn(6, 5, 3, 4, dtype=torch.float64)
    part = slice(0, 4) if rank == 0 else slice(4, 6)  # batches of different sizes
    y = layer(x[part])
    (y * cotangent[part]).sum().backward()
    for parameter in layer.parameters():  # what DDP does, without its division
        distributed.all_reduce(parameter.grad)
    result = dict(y=y.detach(), grad=x.grad[part], state=layer.state_dict())
    result['params'] = [parameter.grad for parameter in layer.parameters()]
    torch.save(result, f'{out}/{rank}.pt')
    distributed.destroy_process_group()


def test_gloo_sync_batchnorm_is_batchnorm_of_the_whole_batch(tmp_path, fork):
    assert fork([lambda: _batch_norm(tmp_path)] * 2) == [0, 0], fork.text
    parts = [torch.load(tmp_path / f'{rank}.pt') for rank in (0, 1)]
    torch.manual_seed(0)
    layer = nn.BatchNorm2d(5).double()
    with torch.no_grad():
        layer.weight.uniform_(0.5, 2)
        layer.bias.uniform_(-1, 1)
    x = (torch.randn(6, 5, 3, 4, dtype=torch.float64) * 3 + 100).requires_grad_()
    cotangent = torch.randn(6, 5, 3, 4, dtype=torch.float64)
    y = layer(x)
    (y * cotangent).sum().backward()
    torch.testing.assert_close(torch.cat([p['y'] for p in parts]), y.detach())
    torch.testing.assert_close(torch.cat([p['grad'] for p in parts]), x.grad)
    for part in parts:
        torch.testing.assert_close(part['params'], [p.grad for p in layer.parameters()])
        for name, buffer in layer.state_dict().items():
            torch.testing.assert_close(part['state'][name], buffer, msg=name)


def test_conversion_keeps_tensors_and_mode():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.SyncBatchNorm(4))).eval()
    before = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    model, replaced = to_gloo_sync_batch_norm(model)
    assert replaced == 1
    assert isinstance(model[1][0], GlooSyncBatchNorm)
    assert not model[1][0].training
    assert before == {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(model(x), model[0](x) / (1 + 1e-5) ** 0.5)


def test_conversion_keeps_settings():
    """Numbers that differ from the defaults and from each other."""
    for settings in (
        dict(eps=0.3, momentum=0.02),
        dict(eps=0.05, momentum=None, affine=False),
        dict(eps=0.2, momentum=0.4, track_running_stats=False),
    ):
        layer = nn.SyncBatchNorm(3, **settings)
        if layer.running_mean is not None:
            layer.running_mean.uniform_(-1, 1)
            layer.running_var.uniform_(0.5, 2)
        plain = nn.BatchNorm2d(3, **settings)
        plain.load_state_dict(layer.state_dict())
        ours, _ = to_gloo_sync_batch_norm(layer)
        x = torch.randn(4, 3, 5, 6) * 3 + 1
        for mode in (True, False, True):
            torch.testing.assert_close(ours.train(mode)(x), plain.train(mode)(x))
        assert ours.state_dict().keys() == plain.state_dict().keys()
        for name, tensor in plain.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], tensor)
