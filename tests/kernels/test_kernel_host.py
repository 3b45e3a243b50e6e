"""The host build: cache, compiler, checks of the debug build, sanitizers, generated files."""

import csv
import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from core_driver import Core, a_order, b_order
from every_op import run as run_every_op

from torch_xdna.devices.npu import flush
from torch_xdna.kernels_xdna1 import (
    coefficients,
    contract,
    counting,
    cycles,
    description,
    host,
    host_compiler,
    published,
)
from torch_xdna.lowering.host_data import native

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@pytest.fixture
def tiny_unit(monkeypatch, tmp_path):
    """A translation unit that compiles at once, and a cache of its own."""
    monkeypatch.setenv("TORCH_XDNA_CACHE", str(tmp_path))
    monkeypatch.setattr(host, "unit", lambda: 'extern "C" int answer() { return 42; }\n')
    return tmp_path


def test_cache_hits_and_keys(tiny_unit):
    first = host.build(["-shared", "-fPIC"])
    before = first.stat().st_mtime_ns
    assert host.build(["-shared", "-fPIC"]) == first and first.stat().st_mtime_ns == before
    assert host.build(["-shared", "-fPIC", "-O1"]) != first
    assert first.parent == tiny_unit


@pytest.mark.parametrize("damage", ["empty", "half", "other", "no digest"])
def test_broken_cache_entries_are_rebuilt(tiny_unit, damage):
    flags = ["-shared", "-fPIC"]
    target = host.build(flags)
    content = target.read_bytes()
    if damage == "no digest":
        target.with_suffix(".sha256").unlink()
    else:
        broken = {"empty": b"", "half": content[: len(content) // 2], "other": content[:-1] + b"x"}[damage]
        target.write_bytes(broken)
    assert host.build(flags).read_bytes() == content
    assert [p.suffix for p in sorted(tiny_unit.iterdir())] == [".sha256", ".so"]


def test_missing_compiler_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    host_compiler.compiler.cache_clear()
    try:
        with pytest.raises(host_compiler.CompilerError, match=r"install g\+\+") as caught:
            host_compiler.compiler()
    finally:
        host_compiler.compiler.cache_clear()
    assert "\n" not in str(caught.value)


def test_compile_error_names_the_compiler_and_the_cause(tiny_unit, monkeypatch):
    monkeypatch.setattr(host, "unit", lambda: "int broken = ;\n")
    with pytest.raises(host_compiler.CompilerError, match="expected"):
        host.build(["-shared", "-fPIC"])
    assert not list(tiny_unit.glob("*.so"))


def test_numpy_is_enough():
    """The array simulator and the overlay work without torch, transformers, ml_dtypes and rich."""
    code = (
        "import sys\n"
        "for m in ('torch', 'transformers', 'ml_dtypes', 'rich', 'scipy'): sys.modules[m] = None\n"
        "from kernels_xdna1 import host, cycles\n"
        "host.load(); print(cycles.cycles('attn_k') > 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout.strip() == "True", run.stderr


BUILDS = {
    "plain": {},
    "counting": {"counting": True},
    "debug": {"debug": True},
    "both": {"debug": True, "counting": True},
}


@pytest.mark.parametrize("order", [("plain", "debug", "both"), ("both", "debug", "plain", "counting")])
def test_builds_in_one_process_do_not_share_tables(order):
    """A process of its own per order: what is loaded first used to lend its tables to all later builds."""
    code = (
        "import sys; sys.path.insert(0, 'tests/kernels')\n"
        "import numpy as np, every_op\n"
        "from kernels_xdna1 import host\n"
        "np.seterr(all='ignore')\n"
        f"for options in {[BUILDS[name] for name in order]}: every_op.run(host.load(**options))\n"
        "print('every kernel ran')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout.strip() == "every kernel ran", run.stderr[-2000:]


def built_libraries():
    """Every kind of library that the packages compile, built here: the kernels, the packing and the flush."""
    for options in BUILDS.values():
        yield host.load(**options).library._name
    for module in (native, flush):
        source = Path(module.__file__).with_suffix(".cc")
        yield str(host_compiler.shared_object(source.stem, source.read_text(), module.FLAGS))


def test_no_built_library_has_symbols_that_are_shared_by_all_of_a_process():
    if not shutil.which("nm"):
        pytest.skip("no nm here to read symbols with")
    for path in built_libraries():
        listed = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout
        unique = [line for line in listed.splitlines() if " u " in line]
        assert not unique, (path, unique)


def test_a_table_of_an_inline_function_is_the_builds_own(tmp_path, monkeypatch):
    """The kind: two libraries with the same inline function and different tables, both ways of compiling a table."""
    monkeypatch.setenv("TORCH_XDNA_CACHE", str(tmp_path))
    answers = []
    for value in (1, 2):
        source = (
            f"inline int *table() {{ static int held[2] = {{{value}, {value}}}; return held; }}\n"
            f"inline int counter = {value};\n"
            'extern "C" int answer(int i) { return table()[i & 1] + 10 * counter; }\n'
        )
        path = host_compiler.shared_object("unique", source, ["-shared", "-fPIC", "-std=c++17"])
        answers.append(ctypes.CDLL(str(path)).answer)
    assert [answer(0) for answer in answers] == [11, 22]


def test_every_kernel_stays_in_its_buffers(checked_kernels):
    with np.errstate(all="ignore"):
        run_every_op(checked_kernels)


def test_debug_build_reports_a_short_buffer(checked_kernels):
    """The driver's buffers are large enough; a call with an operand of the wrong place is caught."""
    core = Core(checked_kernels)
    block = np.zeros(4096 + 64, np.uint16)
    start = -block.ctypes.data % 64 // 2
    odd = block[start + 1 :].ctypes.data
    with pytest.raises(host.KernelError, match=r"attn_q: a load of 64 bytes at offset 0 is misaligned"):
        checked_kernels.attn_q(odd, core.c.ctypes.data, 0, 0)


def test_debug_build_reports_an_access_out_of_bounds(checked_kernels):
    core = Core(checked_kernels)
    block = core._aligned(a_order(np.ones((64, 64))))
    held = (core.a0, core.a1, core.acc, core.hdr)
    core.header(3, w5=3)  # piece 4 of an addition: there are four
    with pytest.raises(host.KernelError, match=r"row_apply: a store of 64 bytes .* outside the operands"):
        checked_kernels.row_apply(
            block.ctypes.data, core.c.ctypes.data, *(h.ctypes.data for h in held), 0, 8, 0
        )
    core.call("gemm_init", core.acc)  # the next call starts clean


def test_every_kernel_sets_its_rounding(kernels):
    """Entries start in the power-up mode, truncation: a kernel that rounds must not inherit it."""
    core = Core(kernels)
    x = np.full((64, 64), 1 + 2**-7 + 2**-8, np.float32)  # a tie that rounds up to even; truncation goes down
    one = np.full((64, 64), 0.5, np.float32)
    assert (core.gemm(np.eye(64), x.T, residual=one)[:64] == np.float32(1.515625)).all()
    assert (core.rows(3, one, np.full((64, 64), 2**-9, np.float32)) == 0.5).all()
    assert (core.rows(3, one, np.full((64, 64), 3 * 2**-10, np.float32)) == np.float32(0.50390625)).all()


def test_calls_from_threads_do_not_share_state(kernels):
    from concurrent.futures import ThreadPoolExecutor

    def product(seed):
        core, random = Core(kernels), np.random.default_rng(seed)
        a, b = random.standard_normal((2, 64, 64))
        core.call("gemm_init", core.acc)
        for _ in range(50):
            core.call("gemm_step", a_order(a), b_order(b), core.acc)
        return core.acc.copy()

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(product, range(8)))
    assert all(np.array_equal(t, product(seed)) for seed, t in enumerate(together))


def test_denormal_mode_of_the_process_is_restored(kernels):
    core = Core(kernels)
    core.call("gemm_init", core.acc)
    assert np.float32(1e-40) * np.float32(0.5) > 0


def test_sanitizers_find_nothing():
    runtime = host.sanitizer_runtime()
    if not Path(runtime).is_file():
        pytest.skip("the compiler has no address sanitizer")
    environment = {**os.environ, "LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0"}
    command = [sys.executable, str(HERE / "every_op.py"), "sanitize"]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert run.returncode == 0 and "every kernel ran" in run.stdout, run.stderr[-3000:]
    assert "runtime error" not in run.stderr, run.stderr[-3000:]


def test_sanitized_build_says_how_to_start():
    with pytest.raises(host_compiler.CompilerError, match="LD_PRELOAD"):
        host.load(sanitize=True)


def test_coefficients_are_generated():
    committed = (host.HERE / "kernels" / "coefficients.hpp").read_text()
    numbers = [[float(t) for t in _numbers(text)] for text in (committed, coefficients.header())]
    assert np.allclose(*numbers, rtol=2e-5, atol=2e-7)


def _numbers(text):
    """The constants; the last digits of a fit depend on the linear algebra library."""
    return [line.split("=")[1].strip(" f;") for line in text.splitlines() if line.startswith("constexpr")]


def test_counts_are_fresh():
    assert cycles.COUNTS_FILE.read_text() == counting.as_text(counting.count())


def test_product_count_is_arithmetic():
    """2048 products of 4x8x4 in 64x64x64; A and B blocks are read four times, the sums once and written once."""
    assert cycles.bound("gemm_step") == 64**3 / 128
    assert cycles.busiest("gemm_step") == "multiply"
    assert cycles.bound("gemm_step") < cycles.cycles("gemm_step") < cycles.stock_cycles("gemm_step")


def test_published_products_are_the_calibration_rows():
    """The same numbers as the time model calibrates on, and none is faster than its bound."""
    rows = {row["id"]: row for row in csv.DictReader((ROOT / "lowering/time/calibration.csv").open())}
    for product in published.PRODUCTS:
        row = rows[product.row]
        shape = tuple(int(float(row[key])) for key in "mkn")
        assert (*shape, row["dtype_in"]) == (product.m, product.k, product.n, product.type)
        assert float(row["value"]) == product.cycles
        assert product.factor > 1
    assert published.STOCK_64.bound == cycles.bound("gemm_step")


def test_every_kernel_has_cycles():
    assert {name for name, _ in cycles.variants()} == set(description.BY_NAME)
    assert all(cycles.cycles(*v) >= cycles.EMPTY_CALL for v in cycles.variants())
    assert all(cycles.stock_cycles(*v) >= cycles.EMPTY_CALL for v in cycles.variants())
    with pytest.raises(KeyError):
        cycles.cycles("gemm_step_fast")


def test_description_matches_the_sources():
    for kernel in description.KERNELS:
        text = (host.HERE / "kernels" / f"{kernel.name}.cc").read_text()
        start = text.index(f'extern "C" void {kernel.name}(')
        declared = text[start : text.index(")", start)].split("(", 1)[1]
        names = [p.split()[-1].lstrip("*") for p in declared.replace("__restrict", "").split(",")]
        assert names == [o.name for o in kernel.operands]


def test_static_buffers_fit_the_core():
    """A 2, B 2 and C 1 objects, sums, header, stack, constants in 64 KB; attention's state fits one object."""
    fifos = 5 * contract.BLOCK_BYTES
    total = fifos + contract.SUMS_BYTES + contract.HEADER_BYTES + contract.STACK_BYTES
    assert total + contract.CONSTANT_BYTES <= 64 * 1024 and contract.STACK_BYTES >= 2048
    assert contract.BLOCK_BYTES >= 4 * 16 * 64 + 2 * 16 * 16 * 4


def test_constants_fit_what_is_kept_for_them():
    """All tables of the sources: a table word and an array of 16 lanes are 64 bytes."""
    sources = "\n".join(path.read_text() for path in (host.HERE / "kernels").iterdir())
    words = 0
    for declared in re.findall(r"^constexpr table_word (.*?);", sources, re.MULTILINE):
        counts = re.findall(r"\w+(?:\[(\d+)\])? = ", declared)
        words += sum(int(count or 1) for count in counts)
    arrays = len(re.findall(r"static constexpr int32_t \w+\[16\]", sources))
    others = len(re.findall(r"static (?:constexpr|const) ", sources)) - arrays
    assert words == 20 and arrays == 3
    assert others == 4  # numbers and functions of the compiler, not of the memory
    assert 64 * (words + arrays) <= contract.CONSTANT_BYTES


def test_b_order_is_what_products_take(checked_kernels):
    core = Core(checked_kernels)
    core.call("gemm_init", core.acc)
    core.call("gemm_step", a_order(np.eye(64)), b_order(np.eye(64)), core.acc)
    assert core.acc.sum() == 64
