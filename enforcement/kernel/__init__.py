"""The machine: one file per interface of the kernel, each under a root path of its own."""
