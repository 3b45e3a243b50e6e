"""From Dynamo's graph to a functional graph of ATen ops, with the user's names of the graph's inputs.

AOTAutograd does it: the graph that we see has no in-place ops and no aliases left, its runtime wrapper
applies mutations and rebuilds aliases afterwards. Nothing is decomposed: scaled_dot_product_attention stays
one op.

Design note. The alternative is to take Dynamo's graph of torch functions as it is. It saves the second trace
(0.4 s for a 6-layer encoder), but then every spelling of an op (F.linear, torch.addmm, x @ w, nn.Linear
inlined, method calls, in-place forms) is a case of its own and aliasing is for us to get right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

import torch
from torch import fx

NEEDS_GRADIENTS = "the graph needs gradients: call it under torch.no_grad() or torch.inference_mode()"
_RESUMED = re.compile(r"torch_dynamo_resume_in_(.+)_at_\d+")


@dataclass(frozen=True)
class Origin:
    """Of a graph: `name` for people, Dynamo's number of its code, its inputs: names, which are parameters."""

    name: str
    frame: int
    inputs: tuple[str, ...]
    static: tuple[bool, ...]

    def of_placeholders(self, graph: fx.Graph) -> tuple[dict[fx.Node, str], frozenset[fx.Node]]:
        """For the graph that AOTAutograd made: placeholder -> name, and which are parameters or buffers."""
        names, static = {}, set()
        for i, node in enumerate(graph.find_nodes(op="placeholder")):
            index = getattr(node.meta.get("desc"), "idx", i)
            if isinstance(index, int) and index < len(self.inputs):
                names[node] = self.inputs[index]
                if self.static[index]:
                    static.add(node)
        return names, frozenset(static)


class _NeedsGradients(Exception):
    pass


def to_aten(
    gm: fx.GraphModule, example_inputs: Sequence[Any], compile: Callable[[fx.GraphModule], Callable[..., Any]]
) -> Callable[..., Any] | None:
    """What runs Dynamo's graph with what `compile` makes of its ATen form; None if it needs gradients."""
    from torch._functorch.aot_autograd import aot_module_simplified, make_boxed_func

    if _needs_gradients(gm):
        return None

    def for_inference(aten: Any, _: Sequence[Any]) -> Any:
        return make_boxed_func(compile(aten))

    def for_training(aten: Any, _: Sequence[Any]) -> Any:
        raise _NeedsGradients

    try:
        return aot_module_simplified(
            gm,
            list(example_inputs),
            fw_compiler=for_training,  # type: ignore[arg-type]
            inference_compiler=for_inference,  # type: ignore[arg-type]
            decompositions={},
        )
    except _NeedsGradients:
        return None


def origin(gm: fx.GraphModule) -> Origin:
    """What Dynamo knows about the graph."""
    placeholders = gm.graph.find_nodes(op="placeholder")
    compile_id = torch._guards.CompileContext.current_compile_id()
    return Origin(
        name=_graph_name(gm),
        frame=-1 if compile_id is None or compile_id.frame_id is None else compile_id.frame_id,
        inputs=tuple(_pretty(n) for n in placeholders),
        static=tuple(_is_static(n) for n in placeholders),
    )


def _needs_gradients(gm: fx.GraphModule) -> bool:
    output = next(n for n in gm.graph.nodes if n.op == "output")
    values = [n.meta.get("example_value") for n in output.all_input_nodes if n.op != "placeholder"]
    return any(isinstance(v, torch.Tensor) and v.requires_grad for v in values)


def _is_static(node: fx.Node) -> bool:
    return "_dynamo_static_input_type" in (node.meta.get("tensor_dict") or {})


def _pretty(node: fx.Node) -> str:
    """`L['self']._modules['layers']._modules['0']._parameters['weight']` as `layers.0.weight`."""
    source = getattr(node, "_dynamo_source", None)
    text = getattr(source, "name", "")
    text = text() if callable(text) else text
    text = re.sub(r"^[LG]\['\w+'\](?=\._)", "", text or "")
    words = [a or b for a, b in re.findall(r"\['?(\w+)'?\]|\.(\w+)", text)]
    return ".".join(w for w in words if w not in ("_modules", "_parameters", "_buffers")) or node.name


def _graph_name(gm: fx.GraphModule) -> str:
    """`encoder` for a module whose class is an encoder, else the name of the class or function."""
    for node in gm.graph.nodes:
        for path, kind in (node.meta.get("nn_module_stack") or {}).values():
            if re.fullmatch(r"[LG]\['\w+'\]", path):
                return _kind(kind if isinstance(kind, str) else kind.__name__)
    try:  # the frame that Dynamo is translating: not an official interface, and only a name depends on it
        from torch._dynamo.symbolic_convert import InstructionTranslator

        frame = InstructionTranslator.current_tx()
        return _frame_name(frame.f_code, frame.f_locals)
    except (ImportError, AttributeError):
        return "graph"


def _frame_name(code: CodeType, variables: Mapping[str, Any]) -> str:
    """The class of the module whose method it is, or the function's name; the same after a graph break, when
    Dynamo goes on in a function of its own making, `torch_dynamo_resume_in_forward_at_42`."""
    name = code.co_name
    while found := _RESUMED.fullmatch(name):
        name = found[1]
    if name == code.co_name:
        module = next(iter(variables.values()), None)
        return _kind(type(module).__name__) if isinstance(module, torch.nn.Module) else name
    # The variables are those that are used later on, in another order; often the module is not among them.
    if isinstance(variables.get("self"), torch.nn.Module):
        return _kind(type(variables["self"]).__name__)
    path = getattr(code, "co_qualname", "").split(".")  # from Python 3.11 on
    is_method = len(path) > 1 and path[-2] != "<locals>"
    return _kind(path[-2]) if is_method else name


def _kind(name: str) -> str:
    return "encoder" if name.endswith("Encoder") else name.rpartition(".")[2]
