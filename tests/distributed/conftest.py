"""tests/serve holds the engine that both use."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "serve"))
