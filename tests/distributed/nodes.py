"""`python tests/distributed/nodes.py`: three of Ray's nodes on this machine that declare an NPU each, as laptops would,
and one without. Each NPU gets one worker, the toy of the tests; one node is taken away in the middle.

By hand: it takes half a minute and several hundred MB of processes.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "serve")]
os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path[:2], str(HERE.parents[1])])
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import pyarrow.parquet as pq  # noqa: E402
import ray  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402
from scripted import tone  # noqa: E402
from toy import Toy  # noqa: E402

from torch_xdna.distributed import job  # noqa: E402
from torch_xdna.distributed.claims import NPU  # noqa: E402
from torch_xdna.speech.engine import Wanted  # noqa: E402


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes = [cluster.add_node(num_cpus=2, resources={NPU: 1}) for _ in range(3)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "log").mkdir()
        (folder / "sounds").mkdir()
        for number in range(300):
            (folder / "sounds" / f"{number}.wav").write_bytes(tone(100 + 10 * number, 0.5))
        seen: set[str] = set()

        def finished(row: dict[str, Any]) -> None:
            seen.add(row["worker"])
            if len(seen) == 3 and len(nodes) == 3:
                cluster.remove_node(nodes.pop())

        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        summary = job.run(
            Toy(folder / "log", 0.2), Wanted(), folder / "sounds", folder / "out", finished=finished
        )
        rows = [row for file in (folder / "out").glob("*.parquet") for row in pq.read_table(file).to_pylist()]
    ray.shutdown()
    cluster.shutdown()
    texts = sorted(int(row["text"]) for row in rows)
    print(
        f"{summary.claims}\n{len(rows)} rows by {len({row['worker'] for row in rows})} workers, {len(nodes)} nodes left"
    )
    assert summary.claims is not None and summary.claims.workers == 3 and len(nodes) == 2
    assert texts == [100 + 10 * number for number in range(300)]


if __name__ == "__main__":
    main()
