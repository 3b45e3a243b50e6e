"""Starts interpreters that see a Phoenix NPU: made-up /sys and /dev, the stand-in driver preloaded, real
pyxrt."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import packages

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[2]
PCI_ADDRESS = "0000:c5:00.1"
FINGERPRINT = "5a5a5a5a5a5a"  # stands for this version's, so that tests don't depend on the overlay's text
START_COLUMNS = {4: [0], 2: [1, 2, 3], 1: [1, 2, 3, 4]}  # by width, as aiecc of mlir-aie 1.3 writes them


def build_driver(root: Path) -> Path:
    """Compile driver.c, once for each version of its text."""
    source = HERE / "driver.c"
    made = packages.cache() / f"driver-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}.so"
    if not made.exists():
        with tempfile.NamedTemporaryFile(dir=made.parent, suffix=".so", delete=False) as out:
            headers = ["-D__counted_by(x)=", "-idirafter", str(root / "usr/include")]
            flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]
            subprocess.run(
                ["gcc", *flags, *headers, "-o", out.name, str(source), "-ldl", "-lpthread"], check=True
            )
        os.replace(out.name, made)
    return made


def write_phoenix(root: Path, *, device: str = "0x1502", name: str = "RyzenAI-npu1") -> None:
    """What the kernel shows of an NPU: its PCI device with attributes, its driver, its device node."""
    pci = root / "sys/devices/pci0000:00" / PCI_ADDRESS
    (pci / "accel/accel0").mkdir(parents=True)
    facts = {
        "vendor": "0x1022",
        "device": device,
        "subsystem_vendor": "0x1022",
        "subsystem_device": device,
        "revision": "0x00",
        "class": "0x118000",
        "device_type": "0",
        "vbnv": name,
        "fw_version": "1.5.5.391",
    }
    for key, value in facts.items():
        (pci / key).write_text(value + "\n")
    for link in (
        root / "sys/bus/pci/drivers/amdxdna" / PCI_ADDRESS,
        root / "sys/bus/pci/devices" / PCI_ADDRESS,
    ):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(pci, link.parent))
    (pci / "driver").symlink_to(os.path.relpath(root / "sys/bus/pci/drivers/amdxdna", pci))
    (root / "dev/accel").mkdir(parents=True)
    (root / "dev/accel/accel0").touch()


@dataclass
class Result:
    """What a function inside the sandbox gave back, or how its process ended."""

    value: Any
    status: int
    stderr: str
    log: list[str] = field(default_factory=list)


class Sandbox:
    """One made-up machine; processes started in it share its NPU."""

    def __init__(self, folder: Path) -> None:
        self.root = packages.tree()
        self.driver = build_driver(self.root)
        self.machine = folder / "machine"
        write_phoenix(self.machine)
        self.log = folder / "log"
        self.folder = folder

    def environment(
        self, knobs: dict[str, int] | None = None, env: dict[str, str] | None = None
    ) -> dict[str, str]:
        libraries = f"{self.root}/usr/lib/python3/dist-packages"
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "LD_"))},
            "PYTHONHOME": str(self.root / "usr"),
            "PYTHONPATH": os.pathsep.join([libraries, str(REPOSITORY), str(HERE.parent)]),
            "PYTHONPYCACHEPREFIX": str(packages.cache() / "bytecode"),  # Debian ships none
            "NPU_STANDIN_ROOT": str(self.machine),
            "NPU_STANDIN_LOG": str(self.log),
            "NPU_STANDIN_LIBRARY": str(self.driver),
            "NPU_STANDIN_FINGERPRINT": FINGERPRINT,
            "OMP_NUM_THREADS": "1",
            **{f"NPU_STANDIN_{k}": str(v) for k, v in (knobs or {}).items()},
            **(env or {}),
        }

    def loader(self, *, driver: bool = True) -> list[str]:
        """The command words before a program of the tree."""
        lib = self.root / packages.LIBRARIES
        preload = ["--preload", str(self.driver)] if driver else []
        return [
            str(lib / "ld-linux-x86-64.so.2"),
            *preload,
            "--library-path",
            f"{lib}:{lib}/blas:{lib}/lapack",
        ]

    def tool(self, name: str, *args: object) -> subprocess.CompletedProcess[str]:
        """Run a program of the packages (xclbinutil, aiebu-asm, aiebu-dump), without the driver."""
        command = [*self.loader(driver=False), str(self.root / "usr/bin" / name), *map(str, args)]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=self.folder, timeout=60, check=False
        )

    def start(
        self,
        function: str,
        /,
        *,
        knobs: dict[str, int] | None = None,
        env: dict[str, str] | None = None,
        **arguments: Any,
    ) -> subprocess.Popen[str]:
        """Start `module:function` (below tests/npu) with keyword arguments in a new interpreter."""
        python = [*self.loader(), str(self.root / "usr/bin/python3.13")]
        command = [*python, "-X", "faulthandler", "-m", "sandbox.inside", function, json.dumps(arguments)]
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(knobs, env),
        )

    def finish(self, process: subprocess.Popen[str], timeout: float = 60) -> Result:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            err += f"\nkilled after {timeout} s"
        lines = [line for line in out.splitlines() if line.startswith("RESULT ")]
        value = json.loads(lines[-1][len("RESULT ") :]) if lines else None
        log = self.log.read_text().splitlines() if self.log.exists() else []
        return Result(value, process.returncode, err, log)

    def call(
        self,
        function: str,
        /,
        *,
        timeout: float = 60,
        knobs: dict[str, int] | None = None,
        env: dict[str, str] | None = None,
        **arguments: Any,
    ) -> Any:
        """Run a function in the sandbox and give its result back; its failure is the test's failure."""
        result = self.finish(self.start(function, knobs=knobs, env=env, **arguments), timeout)
        assert result.status == 0, f"{function} ended with {result.status}:\n{result.stderr}"
        return result.value

    def xclbin(self, name: str = "overlay.xclbin", *, kernel: str | None = None, columns: int = 4) -> Path:
        """An xclbin that registers and runs on the stand-in: real container, kernel and partition, an empty
        array configuration (the configuration means nothing to the stand-in)."""
        folder = self.folder / f"{name}.parts"
        folder.mkdir()
        kernel = kernel or f"xdna1_{columns}c_{FINGERPRINT}"
        (folder / "overlay.pdi").write_bytes(bytes(4096))
        pointer = {"memory-connection": "HOST", "address-qualifier": "GLOBAL", "type": "void*"}
        scalar = {"address-qualifier": "SCALAR", "type": "uint64_t"}
        arguments = [
            {"name": "opcode", **scalar, "offset": "0x00"},
            {**pointer, "name": "instr", "memory-connection": "SRAM", "type": "char *", "offset": "0x08"},
            {"name": "ninstr", **scalar, "type": "uint32_t", "offset": "0x10"},
            *({"name": f"bo{i}", **pointer, "offset": hex(0x14 + 8 * i)} for i in range(5)),
        ]
        dpu = {"subtype": "DPU", "functional": "0", "dpu_kernel_id": "0x901"}
        kernels = {"name": kernel, "type": "dpu", "extended-data": dpu, "arguments": arguments}
        kernels["instances"] = [{"name": "MLIRAIE"}]
        bank = {"m_type": "MEM_DRAM", "m_used": "1", "m_base_address": "0x4000000"}
        banks = [
            {**bank, "m_sizeKB": "0x10000", "m_tag": "HOST"},
            {**bank, "m_sizeKB": "0xc000", "m_tag": "SRAM"},
        ]
        group = {"name": "DPU", "type": "PRIMARY", "pdi_id": "0x01", "dpu_kernel_ids": ["0x901"]}
        group["pre_cdo_groups"] = ["0xC1"]
        uuid = "00000000-0000-0000-0000-000000000000"
        partition = {
            "name": "QoS",
            "operations_per_cycle": "2048",
            "inference_fingerprint": "23423",
            "pre_post_fingerprint": "12345",
            "partition": {"column_width": columns, "start_columns": START_COLUMNS[columns]},
            "PDIs": [{"uuid": uuid, "file_name": "overlay.pdi", "cdo_groups": [group]}],
        }
        sections = {
            "kernels": {"ps-kernels": {"kernels": [kernels]}},
            "memory": {"mem_topology": {"m_count": "2", "m_mem_data": banks}},
            "partition": {"aie_partition": partition},
        }
        for part, content in sections.items():
            (folder / f"{part}.json").write_text(json.dumps(content))
        out = self.folder / name
        command = [*self.loader(driver=False), str(self.root / "usr/bin/xclbinutil")]
        command += ["--add-replace-section", "MEM_TOPOLOGY:JSON:memory.json", "--add-kernel", "kernels.json"]
        command += [
            "--add-replace-section",
            "AIE_PARTITION:JSON:partition.json",
            "--force",
            "--output",
            str(out),
        ]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0 and out.exists(), done.stdout + done.stderr
        return out
