"""AMD's real pyxrt and user-space driver on a machine without an NPU.

`packages` unpacks them from Debian into a cache of this user (nothing is installed, no root is needed),
`driver.c` plays the kernel driver below them, `host` starts an interpreter in which both meet, and `inside`
is what tests use within that interpreter (it has numpy, no torch).
"""
