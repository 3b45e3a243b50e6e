"""Commands of a dispatch and their words: `commands`, `registers`, `schedule` (order), `encode`, `decode`, `check`."""
