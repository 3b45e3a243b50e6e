"""Inside the sandbox: threads that load, run and drop programs while faults come and go, all of it from a seed."""

from __future__ import annotations

import gc
import random
import threading
import time
from typing import Any

from sandbox import inside
from toy import Session, Toy, outcome, slowly

from torch_xdna.devices import npu
from torch_xdna.devices.npu import buffers as memory
from torch_xdna.devices.npu import lifetime
from torch_xdna.devices.npu.errors import NpuError

# knob, its values: each fault happens to a few commands; a hang is ended by the driver's watchdog or by our timeout
FAULTS = {
    "FAIL": (1, 2, 3),
    "SKIP": (1, 2),
    "SUBMIT_FAILS": (1, 2),
    "ALLOC_FAILS": (1, 2),
    "HANG": (1,),
}


class Storm:
    """Three threads on one NPU. `wrong` collects what is neither the right number nor an NpuError."""

    def __init__(self, xclbin: str, seed: int, seconds: float) -> None:
        self.random = random.Random(seed)
        self.session = Session(xclbin, plays=slowly(0.001), run_timeout=0.3, patience=2.0)
        self.end = time.monotonic() + seconds
        self.wrong: list[str] = []
        self.right = self.refused = 0

    def use(self, seed: int) -> None:
        """Programs of several sizes, two sets of weights each, batches; some are dropped after use."""
        choice = random.Random(seed)
        loaded: list[Any] = []
        while time.monotonic() < self.end:
            try:
                if not loaded or choice.random() < 0.1:
                    program = npu.load(
                        self.session.npu, Toy(choice.randint(1, 3), words=choice.choice((64, 200_000)))
                    )
                    added = choice.choice((1.0, 5.0))
                    loaded.append((program, program.upload(program.program.pack_weights(added)), added))
                program, weights, added = choice.choice(loaded)
                values = [float(choice.randint(0, 9)) for _ in range(choice.randint(1, 4))]
                outputs = program.run([program.program.clip(v) for v in values], weights)
                found = [set(output.ravel().tolist()) for (output,) in outputs]
                if found == [{2 * v + added} for v in values]:
                    self.right += 1
                else:
                    self.wrong.append(f"{found} for {values} and {added}")
            except NpuError as error:
                self.refused += 1
                if "\n" in str(error):
                    self.wrong.append(str(error))
                if choice.random() < 0.5:
                    npu.reset()
            except BaseException as error:
                self.wrong.append(repr(error))
                raise
            if loaded and choice.random() < 0.1:
                loaded.pop(choice.randrange(len(loaded)))

    def weather(self) -> None:
        while time.monotonic() < self.end:
            knob = self.random.choice(list(FAULTS))
            inside.set_knob("WATCHDOG_MS", self.random.choice((0, 50)))
            inside.set_knob("FAIL_STATE", self.random.choice((5, 6, 8)))
            inside.set_knob(knob, self.random.choice(FAULTS[knob]))
            time.sleep(self.random.choice((0.01, 0.05, 0.1)))


def storm(xclbin: str, seed: int, seconds: float = 4.0) -> dict[str, Any]:
    """What was wrong, and what is left after the storm."""
    storm = Storm(xclbin, seed, seconds)
    users = [threading.Thread(target=storm.use, args=(3 * seed + i,)) for i in range(3)]
    for user in users:
        user.start()
    storm.weather()
    for user in users:
        user.join(30)
    stuck = sum(user.is_alive() for user in users)
    for knob in FAULTS:
        inside.set_knob(knob, 0)
    inside.set_knob("WATCHDOG_MS", 20)
    time.sleep(0.3)  # what still hangs is ended by the driver
    npu.reset()
    facts = {"wrong": storm.wrong, "right": storm.right, "refused": storm.refused, "stuck": stuck}
    session = storm.session
    facts["after"] = outcome(session.run)
    del storm, users
    gc.collect()
    return facts | {
        "open": inside.get("CONTEXTS_MADE") - inside.get("CONTEXTS_CLOSED"),
        "made": inside.get("CONTEXTS_MADE"),
        "buffers": len(memory.live()),
        "kept": lifetime.kept(),
    }
