"""Where each op runs: `decision` (the loop), `demand`, `partition` (stages), `regions`, `fusion`."""
