"""A certificate authority, serving and client certificates, and their renewal. Imports no other room."""
