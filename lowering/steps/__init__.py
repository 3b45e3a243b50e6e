"""Steps of a region, in order: `kinds`, `plan` (which), `placement` (where buffers lie)."""
