"""SAM 2: loading, the network's steps, the order of propagation, and the tracker built of them."""
