"""Kernels compiled for GPUs that are not there: spills, tensor cores, shared memory."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip('triton', minversion='3.2')

import hybrid_mm.ops
from hybrid_mm.ops import kernels
from hybrid_mm.ops.kernels import kernel, tl

DEV = Path(__file__).resolve().parents[2] / 'tools' / 'dev'
sys.path.insert(0, str(DEV))
try:
    import compiled_kernels
    import kernel_cases
    import kernel_report
    import offline
finally:
    sys.path.remove(str(DEV))


@kernel
def _multiply(x_ptr, y_ptr, out_ptr, stride, SIZE: tl.constexpr, PRECISION: tl.constexpr):
    i = tl.arange(0, SIZE)
    x = tl.load(x_ptr + i[:, None] * SIZE + i[None, :])
    y = tl.load(y_ptr + i[:, None] * SIZE + i[None, :])
    out = tl.dot(x, y, input_precision=PRECISION)
    tl.store(out_ptr + i[:, None] * stride + i[None, :], out)


def launch(dtype=torch.float16, size=64, precision='ieee', stride=64, offset=0, **options):
    x = torch.empty(size * size + offset, dtype=dtype)[offset:]
    found = []
    with kernels.recorded(found.append):
        _multiply[(1,)](x, x, x, stride, SIZE=size, PRECISION=precision, **options)
    return found[0]


@pytest.mark.parametrize('gpu', offline.GPUS)
@pytest.mark.parametrize(
    ('settings', 'products', 'faults'),
    [
        ({}, ('f16',), ''),
        (dict(dtype=torch.bfloat16), ('bf16',), ''),
        (dict(dtype=torch.float32, size=32), (), ''),
        (dict(dtype=torch.float32, size=32, precision='tf32'), ('tf32',), ''),
        (dict(dtype=torch.float32, size=32, precision='tf32x3'), ('tf32x3',), ''),
        (dict(num_warps=1, maxnreg=40), ('f16',), 'bytes of registers spilled'),
        (dict(size=24), (), 'does not compile: .*power of 2'),
    ],
    ids=['float16', 'bfloat16', 'float32', 'tf32', 'tf32x3', 'spills', 'bad'],
)
def test_figures(settings, products, faults, gpu):
    figures = offline.compiled(offline.program(launch(**settings), gpu))
    if figures.warps:
        assert figures.products == products
        assert 16 <= figures.registers <= 255
    assert bool(figures.faults) == bool(faults), figures
    assert re.search(faults, '; '.join(figures.faults)), figures


@pytest.mark.parametrize('gpu', offline.GPUS)
def test_shared_memory_has_bounds(monkeypatch, gpu):
    small = offline.GPUS[gpu]._replace(most_shared=8 * 1024)
    monkeypatch.setitem(offline.GPUS, gpu, small)
    figures = offline.compiled(offline.program(launch(), gpu))
    assert figures.resident == 0
    assert figures.faults == (f'{figures.shared} bytes of shared memory, 8192 at most',)


def test_products_without_tensor_cores_are_faults():
    half = 'tt.dot %a, %b, %c : tensor<16x16xf16> * tensor<16x16xf16> -> tensor<16x16xf32>'
    single = half.replace('f16', 'f32')
    plain = (
        'tt.dot %a : tensor<16x16xf32, #x> * tensor<16x16xf32, #y> -> tensor<16x16xf32, #blocked>'
    )
    fast = plain.replace('#blocked', '#mma')
    ptx = 'mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {'
    for asm, found, bad in (
        (dict(ttir=half, ttgir=fast, ptx=ptx), ('f16',), False),
        (dict(ttir=half, ttgir=plain, ptx=''), (), True),
        (dict(ttir=f'{half}\n{half}', ttgir=f'{fast}\n{plain}', ptx=ptx), ('f16',), True),
        (dict(ttir=f'{half}\n{single}', ttgir=f'{fast}\n{plain}', ptx=ptx), ('f16',), False),
        (dict(ttir=single, ttgir=plain, ptx=''), (), False),
        (dict(ttir='', ttgir='', ptx=''), (), False),
    ):
        products, faults = offline._products(asm)
        assert (products, bool(faults)) == (found, bad)


def test_programs_are_those_that_triton_would_make():
    def key(**settings):
        return offline.program(launch(**settings), 'sm_80').key

    assert key() == key(stride=32), 'divisible by 16 both'
    assert key() != key(stride=1), 'a constant'
    assert key() != key(stride=8)
    assert key(stride=8) == key(stride=9)
    assert key() != key(offset=1), 'an address that 16 does not divide'
    assert key() == key(offset=8)
    assert key() != key(num_warps=8)
    assert key() != key(dtype=torch.bfloat16)


def test_resident_warps():
    gpu = offline.GPUS['sm_80']
    for registers, shared, warps, expected in (
        (32, 0, 4, 64),
        (33, 0, 4, 48),  # 40 registers are given out: 51 warps, 12 programs of 4
        (255, 0, 4, 8),
        (255, 0, 8, 8),
        (32, 64 * 1024, 4, 8),  # 2 programs, 1 KB of each for the system
        (32, 0, 1, 32),  # 32 programs
        (128, 0, 32, 0),
    ):
        assert offline._resident(gpu, registers, shared, warps) == expected, (registers, shared)


# a few layers that launch every kernel that there is
FEW = (
    'NAT-M 1/16', 'SASA-R50 1/32', 'Halo-R50 1/32', 'BoT50 1/32', 'EA-AA-R50 1/32',
    'CoAtNet-0 1/32', 'LeViT-128S to 1/32', 'Swin-T shifted 1/32', 'SAN10 pairwise ACmix 1/16',
    'ELSA-Swin-T 1/16', 'ELSA-Swin-T lam 1 1/4', 'QnA-T 1/16', 'QnA-T to 1/16', 'ACmix-R50 1/16',
    'PeLK-T 51 1/4', 'RepLKNet-31B 31 1/4', 'SLaK-T 51x5 1/4',
)  # fmt: skip


# bytes that a thread spills at most at some shape: two registers in half precision, and tiles of
# single precision for which nothing smaller was found that spills less
KNOWN_SPILLS = {
    ('differentiate_queries', 'float16'): 8,
    ('differentiate_queries', 'bfloat16'): 8,
    ('differentiate_queries', 'float32'): 76,
    ('differentiate_keys', 'float32'): 84,
}


def unknown(faults):
    """Faults but for the known spills."""
    found = []
    for fault in faults:
        spill = re.match(r'(\w+) \((\w+);.*: (\d+) bytes of registers spilled', fault)
        if not spill or int(spill[3]) > KNOWN_SPILLS.get((spill[1], spill[2]), 0):
            found.append(fault)
    return found


def test_known_spills_hide_no_others():
    known = 'differentiate_keys (float32; LESA-R50 1/32) on sm_80: 84 bytes of registers spilled'
    worse, other = known.replace('84', '85'), known.replace('keys', 'maps')
    half, tensor = known.replace('float32', 'float16'), 'attend (float16; x) on sm_80: no mma'
    assert unknown([known, worse, other, half, tensor]) == [worse, other, half, tensor]


def launched_kernels():
    """Names of the kernels that operators launch, from their source."""
    found = set()
    folder = Path(hybrid_mm.ops.__file__).parent
    text = '\n'.join(path.read_text() for path in folder.rglob('*.py'))
    for name in re.findall(r'^@kernel\b.*\ndef (\w+)\(', text, re.M):
        if re.search(rf'\b{name}\[.*\]\(', text):
            found.add(name.strip('_'))
    return found


def test_kernels_of_a_few_layers():
    """Each kernel once, in half precision if it is used in that."""
    few = [case for case in kernel_cases.cases() if case.name in FEW]
    assert len(few) == len(FEW)
    rows = compiled_kernels.rows(few, ['float16', 'float32'], ['sm_90'])
    first = list({row.kernel: row for row in reversed(rows)}.values())
    missing = launched_kernels() - {row.kernel for row in rows}
    assert not missing, 'kernels that no layer of FEW launches'
    compiled_kernels.compile_all(first, jobs=1)
    assert unknown(fault for row in first for fault in row.faults()) == []


@pytest.mark.slow
@pytest.mark.parametrize('kind', kernel_report.TYPES)
def test_kernels_of_all_layers(kind, tmp_path, capsys):
    files = tmp_path / 'page.md', tmp_path / 'figures.json'
    kernel_report.main(['--types', kind, '--markdown', str(files[0]), '--json', str(files[1])])
    rows = json.loads(files[1].read_text())
    assert {row['kernel'] for row in rows} >= launched_kernels()
    _, _, faults = capsys.readouterr().out.partition(' faults\n')
    assert unknown(fault.strip() for fault in faults.splitlines()) == []


def test_report_of_one_layer(monkeypatch, capsys, tmp_path):
    """Filters, table, page and exit status."""

    class Layer(torch.nn.Module):
        def forward(self, x):
            _multiply[(3, 2)](x, x, x, 32, SIZE=32, PRECISION='ieee')
            return x * 2

    case = kernel_cases.Case('Net 1/4', Layer, (64, 64))
    bad = kernel_cases.Case('Bad 1/4', Layer, (64, 64))
    monkeypatch.setattr(compiled_kernels, 'cases', lambda: iter([case, bad]))
    page = tmp_path / 'page.md'
    options = ['Net', '--types', 'float32', '--gpus', 'sm_80', '--markdown', str(page)]
    assert kernel_report.main(options) == 0
    out = capsys.readouterr().out
    assert re.search(r'^multiply +Net 1/4 +float32 +6 ', out, re.M)
    assert '1 programs, 0 faults' in out
    assert '| multiply | Net 1/4 | float32 | 6 | - |' in page.read_text()
    fault = offline.Figures(products=('tf32',), faults=('8 bytes of registers spilled',))
    monkeypatch.setattr(compiled_kernels, 'compiled', lambda program: fault)
    assert kernel_report.main(['--types', 'float32', '--gpus', 'sm_90']) == 1
    out = capsys.readouterr().out
    assert 'multiply (float32; Net 1/4) on sm_90: 8 bytes of registers spilled' in out
    assert 'on sm_90: products of float32 numbers rounded to TF32' in out
    assert 'Net 1/4 (+1)' in out
    assert kernel_report.main(['nothing of this name']) == 2
    assert 'no layer has nothing of this name in its name' in capsys.readouterr().err


def test_names_of_types_and_gpus():
    assert tuple(compiled_kernels.TYPES) == kernel_report.TYPES
    assert tuple(offline.GPUS) == kernel_report.GPUS
