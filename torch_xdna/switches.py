"""Whether torch.compile is switched off as a whole: then no backend is ever called, and all runs eager."""

from __future__ import annotations

import os


def switched_off() -> str | None:
    """What switches torch.compile off in this process and how to undo it, a clause; None if it works."""
    if os.environ.get("TORCHDYNAMO_DISABLE") == "1":  # read at each torch.compile
        return "TORCHDYNAMO_DISABLE=1 in the environment switches torch.compile off: unset it"
    import torch._dynamo

    if torch._dynamo.config.disable:
        if os.environ.get("TORCH_COMPILE_DISABLE") == "1":  # read when torch._dynamo is imported
            return "TORCH_COMPILE_DISABLE=1 in the environment switches torch.compile off: unset it"
        return "torch._dynamo.config.disable switches torch.compile off: set it to False"
    stance = getattr(getattr(torch._dynamo.eval_frame, "_stance", None), "stance", "default")
    if stance == "force_eager":
        return "torch.compiler.set_stance('force_eager') switches torch.compile off: set it to 'default'"
    return None
