"""The rungs of the self-test: what each tries, what it needs, what its failure most likely means."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from torch_xdna.devices import npu
from torch_xdna.devices.npu.chip import Npu
from torch_xdna.kernels_xdna1.host_compiler import CompilerError
from torch_xdna.lowering import Program, lower
from torch_xdna.lowering.errors import LackingError
from torch_xdna.selftest import measure, small
from torch_xdna.selftest.cases import ENCODER, Case, all_cases
from torch_xdna.selftest.expected import compare, expected
from torch_xdna.selftest.rungs import Facts, Rung

DEVICE, RESULTS, OBJECTS, DISPATCH = "device and context", "tokens of results", "objects", "dispatch"
DISPATCHES = f"{ENCODER}, a dispatch per layer"
GUARD_WORD = (
    "the overlay's cores send and take FIFO objects only, so the bytes of the bank of constants and a guard word "
    "at the stack's end can't be read back; the results that depend on the constants stand in for them"
)
TOOLCHAIN = "another version of Peano, or -O1, for the kernels: `torch-xdna build-overlay --level=-O1`"
SPLIT = 'options={"split": "layer"}, a dispatch per layer (a later rung tries it)'
RECOVER = "end all programs that use the NPU and reload amdxdna, else suspend, else restart the computer"


class Ladder:
    """Builds the rungs, and keeps what later ones learn from earlier ones. `clock`: GHz for modelled times."""

    def __init__(
        self, *, overlay: str | None, columns: int, quick: bool, repeats: int, clock: Callable[[], float]
    ) -> None:
        self.overlay, self.columns, self.quick, self.repeats = overlay, columns, quick, repeats
        self.clock = clock
        self.device: Npu | None = None
        self.iterated = True  # until a rung fails that iterates
        self.split: str | None = None  # until layers fail in one dispatch and not in several
        self.failure: Exception | None = None  # that kept the NPU from being opened

    def rungs(self) -> Iterator[Rung]:
        """All of them, in order."""
        yield Rung(
            DEVICE,
            self._open,
            60.0,
            causes=("driver, firmware or pyxrt miss", "another program holds the NPU", "an earlier run wedged it"),
            next=("`torch-xdna doctor`", RECOVER),
        )  # fmt: skip
        yield from self._tokens()
        yield from self._forms()
        yield Rung(
            OBJECTS,
            self._on(self._objects),
            30.0,
            needs=(RESULTS,),
            causes=("the cores' program did not start", "a FIFO still holds an earlier run's objects"),
            next=("reload amdxdna and run this test alone", TOOLCHAIN, "an overlay with fewer kernels"),
        )  # fmt: skip
        names = []
        for name, case in small.kernels():
            names.append(f"kernel {name}")
            yield Rung(
                names[-1],
                self._on(functools.partial(self._kernel, case)),
                60.0,
                needs=(OBJECTS,),
                causes=(
                    "the core compiler miscompiled this kernel",
                    "a few last bits only: the core's fp32 adder rounds differently from the host's build",
                ),
                next=(TOOLCHAIN, "an overlay without this kernel, if a version miscompiles it"),
            )
        yield Rung(
            "constants and stack",
            self._on(self._constants),
            90.0,
            needs=(OBJECTS,),
            causes=("the stack grew into the constants", "a kernel writes outside its buffers"),
            next=("a larger stack in the overlay, or -Os for the row kernels", TOOLCHAIN),
        )
        yield from self._measurements()
        yield from self._cases(names)

    def _on(self, action: Callable[[Npu], Facts]) -> Callable[[], Facts]:
        """`action` on the device, turned on: a failed rung must not hide the others."""

        def act() -> Facts:
            assert self.device is not None
            self.device.turn_on()
            try:
                return action(self.device)
            except LackingError as error:
                return {"impossible": str(error)}

        return act

    def _open(self) -> Facts:
        try:
            self.device = npu.runtime(self.overlay, columns=self.columns)
        except Exception as error:
            self.failure = error
            raise
        return {"overlay": self.device.path.name, "columns": self.columns}

    def _tokens(self) -> Iterator[Rung]:
        causes = (
            "the channel's controller id is not the one that the overlay routes to the controller",
            "the overlay was built by another version of mlir-aie than the instruction stream is for",
        )
        next = ("`torch-xdna build-overlay` with the recommended versions", RECOVER)
        yield Rung(RESULTS, self._on(lambda d: self._token(d)), 45.0, (DEVICE,), causes, next)
        for column in range(self.columns):
            for channel in range(2):
                act = functools.partial(self._token, column=column, channel=channel)
                name = f"token of column {column}, MM2S {channel}"
                yield Rung(name, self._on(act), 45.0, (RESULTS,), causes, next)

    def _token(self, device: Npu, column: int | None = None, channel: int | None = None) -> Facts:
        return self._bits(device, *small.one_token(self.columns, column, channel))

    def _forms(self) -> Iterator[Rung]:
        for name in small.FORMS:
            causes = ["the shim's DMA does something else with this form than its register description says"]
            next = ["the rungs after this one show which other forms work"]
            if "iterated" in name:
                causes = ["iterated descriptors of a shim, which others saw time out on this chip"]
                next = ['options={"iterated": False} (this test goes on that way by itself)']
            act = functools.partial(self._form, name)
            yield Rung(f"descriptors: {name}", self._on(act), 45.0, (RESULTS,), tuple(causes), tuple(next))

    def _form(self, name: str, device: Npu) -> Facts:
        before, self.iterated = self.iterated, self.iterated and "iterated" not in name
        facts = self._bits(device, *small.of_form(name, self.columns))
        self.iterated = before and (facts["passed"] or "iterated" not in name)
        return facts

    def _objects(self, device: Npu) -> Facts:
        case = small.identity()
        loaded = measure.load(case.region, device, iterated=False)
        ((output,),) = loaded.run([case.inputs], loaded.upload(loaded.program.pack_weights(case.params)))
        wrong = case.wrong_cores(output, self.columns)
        return {"passed": not wrong, "wrong_cores": wrong}

    def _kernel(self, case: Case, device: Npu) -> Facts:
        return self._bits(device, case, measure.load(case.region, device, iterated=False).program)

    def _constants(self, device: Npu) -> Facts:
        """What depends on the constants, before and after the kernels with the deepest stack."""
        cases = dict(small.kernels())
        for name, case in list(cases.items()):
            kinds = [op.kind for op in lower(case.region, columns=self.columns, iterated=False).steps]
            if device.variant.lacking(kinds):
                del cases[name]

        def results() -> list[np.ndarray]:
            return [self._run(device, c, measure.load(c.region, device, iterated=False).program)[0]
                    for c in cases.values()]  # fmt: skip

        first, second = results(), results()
        changed = [name for name, a, b in zip(cases, first, second) if not np.array_equal(a, b)]
        return {"passed": not changed, "changed": changed, "not_shown": GUARD_WORD}

    def _run(self, device: Npu, case: Case, program: Program) -> list[np.ndarray]:
        loaded = npu.load(device, program)
        (outputs,) = loaded.run([case.inputs], loaded.upload(program.pack_weights(case.params)))
        return outputs

    def _bits(self, device: Npu, case: Case, program: Program) -> Facts:
        """The program's outputs against the host build of the kernels, bit for bit."""
        found = self._run(device, case, program)
        try:
            wanted = on_the_simulator(case, program)
        except CompilerError as error:
            return {"impossible": f"it ran, but the kernels can't be built here to compare with: {error}"}
        facts = compare(found, wanted)
        return facts | {"passed": facts["finite"] and facts["max_abs"] == 0}

    def _measurements(self) -> Iterator[Rung]:
        repeats, quick = self.repeats, self.quick
        for name, action in (
            (DISPATCH, lambda d: measure.dispatch(d, repeats=10 * repeats, iterated=self.iterated)),
            (
                "bandwidth",
                lambda d: measure.bandwidth(d, self.latency, quick=quick, repeats=repeats, iterated=self.iterated),
            ),
            ("sync", lambda d: measure.sync(d, repeats=repeats)),
        ):  # fmt: skip
            next = ("run it again with nothing else on the NPU",)
            needs = (DEVICE,) if name == "sync" else (OBJECTS,)
            act = functools.partial(self._measured, name, action)
            yield Rung(name, self._on(act), 120.0, needs, ("the NPU fails under load",), next)

    latency = 0.0
    whole = True  # whether the first encoder passed in one dispatch

    def _measured(self, name: str, action: Callable[[Npu], Facts], device: Npu) -> Facts:
        facts = action(device)
        if name == DISPATCH:
            self.latency = facts["median_s"]
        return facts

    def _cases(self, kernels: list[str]) -> Iterator[Rung]:
        """Ops, then layers; after the first encoder the same in a dispatch per layer, which tells whether it is the
        number of tokens or the length of the stream."""
        before: str = OBJECTS
        for case in all_cases(quick=self.quick):
            layers = "layer" in case.name and "norm" not in case.name
            causes = (
                (
                    "too many tokens or too long a stream in one dispatch",
                    "one op of it is wrong: see the rungs before",
                )
                if layers
                else ("a shape's transfers that one block does not have", "a kernel's loop count")
            )
            next = (SPLIT, "a smaller model, for a shorter run", TOOLCHAIN) if layers else (TOOLCHAIN,)
            act = functools.partial(self._case, case)
            yield Rung(case.name, self._on(act), 600.0 if layers else 180.0, (before,), causes, next)
            if case.name == ENCODER:
                again = functools.partial(self._split, case)
                reasons = ("not the length of a dispatch: the rung before is not the only one that fails",)
                yield Rung(DISPATCHES, self._on(again), 600.0, (before,), reasons, (TOOLCHAIN, RECOVER))
            elif layers:
                before = case.name

    def _split(self, case: Case, device: Npu) -> Facts:
        """A dispatch per layer; if that is right where one dispatch was not, the larger encoders go on that way."""
        facts = self._case(case, device, split="layer")
        if facts["passed"] and not self.whole:
            self.split = "layer"
        return facts

    def _case(self, case: Case, device: Npu, split: str | None = None) -> dict[str, Any]:
        """One region: run, compared, timed."""
        if split is None and case.name == ENCODER:
            self.whole = False  # until it has passed
        loaded = measure.load(case.region, device, iterated=self.iterated, split=split or self.split)
        weights = loaded.upload(loaded.program.pack_weights(case.params))
        (outputs,) = loaded.run([case.inputs], weights)
        again = loaded.run([case.inputs] * 2, weights)
        source, wanted = expected(case)
        facts: dict[str, Any] = {"compared_with": source, **compare(outputs, wanted)}
        facts["repeatable"] = all(compare(clip, outputs)["max_abs"] == 0 for clip in again)
        facts["passed"] = facts["finite"] and facts["repeatable"] and facts["relative_l2"] <= case.tolerance
        if split is None and case.name == ENCODER:
            self.whole = facts["passed"]
        facts["dispatches"] = len(loaded.program.dispatches)
        facts |= measure.timed(loaded, case.inputs, weights, self.repeats)
        facts["modelled_s"] = measure.modelled_seconds(loaded.program, case.params, self.clock())
        return facts


def on_the_simulator(case: Case, program: Program) -> list[np.ndarray]:
    """The same words on the array simulator, which runs the host build of the kernels."""
    from torch_xdna.devices.array import Simulator
    from torch_xdna.lowering.overlay import overlay

    weights = program.pack_weights(case.params)
    activations = np.zeros(program.activations_bytes, np.uint8)
    program.pack_inputs(case.inputs, activations)
    Simulator(overlay(program.columns)).run_all(program.dispatches, [weights, activations])
    return program.unpack_outputs(activations)


def outcome(result: Facts) -> Facts:
    """A rung's facts, or why there are none, as one dict."""
    if "facts" in result:
        return dict(result["facts"])
    return {"error": result.get("error") or result["reason"]}
