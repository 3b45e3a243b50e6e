"""A pyxrt in Python for interpreters with torch: the calls that the runtime makes, and an array behind them.

For machines on which the packages of the real module can't be had (`borrowed_xrt`). States of coming runs are
scripted; without a script the array simulator executes the run.
"""

from __future__ import annotations

import enum
import types
from typing import Any

import numpy as np

from torch_xdna.devices.array import Simulator
from torch_xdna.lowering.overlay import overlay


class ert_cmd_state(enum.IntEnum):
    ERT_CMD_STATE_NEW = 1
    ERT_CMD_STATE_COMPLETED = 4
    ERT_CMD_STATE_ERROR = 5
    ERT_CMD_STATE_ABORT = 6
    ERT_CMD_STATE_TIMEOUT = 8


class ScriptedXrt(types.ModuleType):
    """The module; also its own record: `runs` started, `contexts` opened."""

    def __init__(self, columns: int = 4) -> None:
        super().__init__("pyxrt")
        self.simulator = Simulator(overlay(columns))
        self.script: list[str] = []
        self.runs = self.contexts = 0
        self.ert_cmd_state = ert_cmd_state
        self.xclBOSyncDirection = types.SimpleNamespace(
            XCL_BO_SYNC_BO_TO_DEVICE=0, XCL_BO_SYNC_BO_FROM_DEVICE=1
        )
        self.xrt_info_device = types.SimpleNamespace(name="name")
        xrt = self

        class bo:
            host_only, cacheable = "host_only", "cacheable"

            def __init__(self, device: Any, size: int, kind: str, group: int) -> None:
                self.bytes = np.zeros(size, np.uint8)

            def map(self) -> memoryview:
                return self.bytes.data

            def sync(self, direction: int, size: int, offset: int) -> None:
                assert offset >= 0 and offset + size <= self.bytes.size

        class run:
            def __init__(self, kernel: Any) -> None:
                self.arguments: dict[int, Any] = {}
                self.ended = ert_cmd_state.ERT_CMD_STATE_NEW

            def set_arg(self, index: int, value: Any) -> None:
                self.arguments[index] = value

            def state(self) -> ert_cmd_state:
                return self.ended

            def start(self) -> None:
                xrt.runs += 1
                state = xrt.script.pop(0) if xrt.script else "COMPLETED"
                if state == "SUBMIT":
                    raise RuntimeError("DRM_IOCTL_AMDXDNA_EXEC_CMD IOCTL failed (err=-5): Input/output error")
                if state == "COMPLETED":
                    code, weights, activations = (self.arguments[i].bytes for i in (1, 3, 4))
                    words = code.view(np.uint32)[: self.arguments[2]]
                    xrt.simulator.run(words, [weights, activations])
                self.ended = ert_cmd_state[f"ERT_CMD_STATE_{state}"]

        self.bo, self.run = bo, run

    def fail(self, state: str, times: int) -> None:
        """The next `times` runs end in `state` (ERROR, ABORT, TIMEOUT), or can't be submitted (SUBMIT)."""
        self.script = [state] * times

    def enumerate_devices(self) -> int:
        return 1

    def device(self, index: int) -> Any:
        return types.SimpleNamespace(
            get_info=lambda what: "RyzenAI-npu1", register_xclbin=lambda xclbin: "uuid"
        )

    def xclbin(self, path: str) -> Any:
        return path

    def hw_context(self, device: Any, uuid: str) -> Any:
        self.contexts += 1
        return types.SimpleNamespace()

    def kernel(self, context: Any, name: str) -> Any:
        return types.SimpleNamespace(group_id=lambda index: index)
