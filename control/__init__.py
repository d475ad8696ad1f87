"""The leader: keeps certificates, caBundle and match conditions in the cluster as they should be, one replica at a time."""
