"""Jobs on a cluster, from the side of the person who runs them."""
