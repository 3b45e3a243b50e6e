"""`torch-xdna serve`: transcription over HTTP, for clients of OpenAI's audio interface and of whisper.cpp's server.

    cli/serve -> server     the process: socket, signals, how it ends
        app                 which address does what
        guard               who may ask: key, host, origin; the log; what every answer carries
        uploads             a request's body -> fields and an unnamed temporary file
        asked               fields -> what is wanted of the model
        queue               recordings of many clients -> common batches -> events per client
        engine              a batch of windows -> segments and the device that computed them
        formats             segments -> json, text, srt, vtt, verbose_json, events
        limits metrics refused page/

The model is whatever has the methods of torch_xdna.speech.engine.Engine; nothing here knows more of it.
FastAPI, uvicorn, python-multipart and prometheus-client are the extra `serve` and imported only here.
"""
