"""What the host packs and unpacks: `bf16`, `blocks` (orders inside one), `fills` of kernel arguments, `conv_input`."""
