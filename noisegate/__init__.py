"""noisegate keeps noisy neighbours apart on Kubernetes nodes."""
