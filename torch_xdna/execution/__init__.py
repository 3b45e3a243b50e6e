"""What a call of a compiled graph runs: `graph`, `region_call`, `borders`, `recipes`, `weight_store`, `recovery`."""
