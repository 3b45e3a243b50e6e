"""`torch-xdna evaluate`: how right and how fast transcripts are, on anybody's recordings.

`manifest` reads what is said in which file, `variant` is one way to transcribe (device, precision, decoder) and runs
it, `score` counts words, `show` prints tables and draws the picture. Everything that is called measured was measured in
that run, on the machine that ran it.
"""
