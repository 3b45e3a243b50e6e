"""What stands between a recording and its samples: where its bytes come from (source), which streams they hold
and whether all of them are there (parts), and the decoder (decode). `torch_xdna.speech.audio` puts them together.
"""
