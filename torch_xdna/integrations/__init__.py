"""The encoder inside other programs' pipelines. Each module is imported only by who uses it and needs that program.

torch_xdna.integrations.faster_whisper    a WhisperModel for faster-whisper and what is built on it (extra `fast`)
"""
