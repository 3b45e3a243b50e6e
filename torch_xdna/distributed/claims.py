"""How many workers a cluster has room for and what each claims of its machine.

Claims are fractions: workers together leave at least a quarter of every machine's cores unclaimed, and reading claims
so little that it always finds room there. Two workers that claimed both of two cores would keep the reading tasks, and
so themselves, waiting for ever.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch_xdna.errors import XdnaError

NPU = "xdna_npu"  # the custom resource by which a machine says how many NPUs it has: ray start --resources
CORES = 4  # per worker on the emulator, if a machine has them
LEFT = 0.25  # of each machine's cores, for reading
READING = 0.1  # cores that a reading task claims: the least that any machine has left is 0.25


@dataclass(frozen=True)
class Claims:
    """`cores` and `resources`: of each worker; `threads`: that it computes with."""

    workers: int
    cores: float
    threads: int
    resources: dict[str, float]


def claims(nodes: Sequence[Mapping[str, float]], device: str, workers: int | None = None) -> Claims:
    """For the machines of a cluster, each a mapping as `{"CPU": 8, "xdna_npu": 1}`. With `device` auto, NPUs are
    taken if a machine declares one. Raises XdnaError where nothing could ever run."""
    if workers is not None and workers < 1:
        raise XdnaError(f"{workers} workers can do nothing: give 1 or more, or leave it out")
    npus = sum(int(node.get(NPU, 0)) for node in nodes)
    if device == "npu" and not npus:
        raise XdnaError(
            f"no machine of the cluster declares an NPU: start Ray there with --resources '{{\"{NPU}\": 1}}'"
        )
    if npus and device in ("npu", "auto"):
        return _on_npus([node for node in nodes if node.get(NPU, 0) >= 1], min(workers or npus, npus))
    cores = [node.get("CPU", 0) for node in nodes if node.get("CPU", 0) >= 1]
    if not cores:
        raise XdnaError("no machine of the cluster has a CPU for Ray: start it with --num-cpus")
    return _on_cores(cores, workers)


def _on_npus(nodes: Sequence[Mapping[str, float]], workers: int) -> Claims:
    """The decoder runs beside each NPU, on its share of the cores."""
    share = min(node.get("CPU", 1) / int(node[NPU]) for node in nodes)
    return Claims(workers, _rounded(share * (1 - LEFT)), max(1, int(share)), {NPU: 1.0})


def _on_cores(cores: Sequence[float], workers: int | None) -> Claims:
    share = min(CORES, *cores) if len(cores) > 1 else min(CORES, cores[0])
    if workers is None:
        workers = sum(int(each // share) for each in cores)
    else:
        # As large as lets all of them in: fewer cores each until the machines have that many places.
        while sum(math.floor(each / share) for each in cores) < workers:
            share /= 2
        share = max(share, min(CORES, min(cores) / math.ceil(workers / len(cores))))
        while sum(math.floor(each / share + 1e-9) for each in cores) < workers:
            share *= 0.9
    return Claims(workers, _rounded(share * (1 - LEFT)), max(1, int(share)), {})


def _rounded(cores: float) -> float:
    """Ray counts in ten-thousandths; a little less is always right."""
    return max(0.0001, math.floor(cores * 1000) / 1000)
