"""`python -m slow_server --port 0`: a real server process on an engine that takes its time."""

from __future__ import annotations

import sys
import time

from scripted import Scripted

from torch_xdna.serve import server
from torch_xdna.serve.guard import Access
from torch_xdna.serve.limits import Limits


class Slow(Scripted):
    def run(self, *args):
        time.sleep(0.5)
        return super().run(*args)


if __name__ == "__main__":
    server.log_to_stderr()
    server.run(Slow, Limits(batch_size=1, grace_seconds=20), Access(), "127.0.0.1", int(sys.argv[2]))
