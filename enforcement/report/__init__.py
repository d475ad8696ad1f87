"""What the cluster is told of this node and its pods: Events, labels and a condition."""
