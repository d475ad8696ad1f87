"""The API server as others need it: a connection, and what it holds, kept up to date by list and watch. Knows nothing of noisegate."""
