"""What to do, decided from values alone: no file, no socket, no clock."""
