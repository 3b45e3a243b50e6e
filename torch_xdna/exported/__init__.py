"""An encoder in one file: instruction words, packed weights and how to fill and read them. Loading it needs numpy only.

    torch_xdna.export(whisper.model.encoder, "base.xdna")       # or `torch-xdna export MODEL -o base.xdna`
    hidden = torch_xdna.load("base.xdna", device="npu")(mel)    # numpy in, numpy out; no torch

`write` makes the file, `sources` finds weights in modules and folders, `file` is the container (safetensors, whose
tensors lie where they can be mapped), `describe` turns a program's fills into JSON and back, `load` runs it.
"""
