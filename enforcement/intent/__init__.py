"""What each pod of this node asks for, and who says so: the API server's watch, the ledger, or the container runtime."""
